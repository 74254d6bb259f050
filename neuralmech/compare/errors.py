"""Run laws over a record and measure how far they are from it, in blocks: memory does not grow with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuralmech.compare.inputs import Stretch, circumstances, hyperparameters, inside, sampled, signal, stretches
from neuralmech.compare.norms import Norms, norm_rows
from neuralmech.laws import LAWS
from neuralmech.laws.system import Hyperparameters, Integration, Law
from neuralmech.record import Charges, Record, RecordError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """Sampled rows for figures.

    Attributes
    ----------
    step, lr
        Shape (points,).
    measured
        All charges: (points, charges); NaN, as all curves, where a window of the record begins.
    chosen
        Columns drawn one by one, spread over the charges' final values.
    theory
        Law → the chosen charges: (points, chosen).
    error
        Law → RMS over charges of theory − measured, relative to the RMS of measured: (points,).
    parameters, singles
        Single parameters, (points, parameters), and for each its name and the charge that it is part of.
    """

    step: NDArray[np.int64]
    lr: Array
    measured: Array
    chosen: NDArray[np.int64]
    theory: dict[str, Array]
    error: dict[str, Array]
    parameters: Array = field(default_factory=lambda: np.empty((0, 0)))
    singles: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class FamilyComparison:
    """One family of one run: a table row per site and law, and curves."""

    family: str
    table: pd.DataFrame
    curves: Curves


def compare_family(
    record: Record, family: str, laws: Mapping[str, Law] = LAWS, lines: int = 6, block: int = 1024
) -> FamilyComparison:
    """Integrate each law over one family's charges and compare.

    error = RMS over steps and charges of (theory − measured) / RMS of measured, per site; unexplained =
    Σ(theory − measured)² / Σ(measured − measured at row 0)²: 0 is perfect, 1 is no better than "conserved",
    NaN if the charge did not move at all. q10, median and q90 are quantiles over a site's charges of their own
    RMS error, relative to the same RMS of measured. Matrix-valued charges get a row for their Frobenius norm: of
    theory and of measured where the matrix is recorded in full, otherwise for the laws that scale it as a whole.

    Raises
    ------
    RecordError
        If the record holds no rows or lacks a signal that a law needs.
    """
    if record.rows == 0:
        raise RecordError(f"{record.path} holds no committed rows; train for at least one block")
    charges = record.charges(family)
    c = circumstances(record, charges)
    norms = Norms(charges.index)
    sites = _Sites(charges, norms)
    kept = sampled(record.rows)
    chosen = _spread(charges.value[record.rows - 1], lines)
    measured = _Measured(sites, kept)
    index = charges.parameter_index
    parameters = np.empty((len(kept), len(index)))
    reasons = {name: law.reason(c) for name, law in laws.items()}
    runs = {n: _Run(law, charges, c.nesterov, sites, kept, chosen) for n, law in laws.items() if not reasons[n]}
    for stretch in stretches(record, block):
        value = norms.append(charges.value[stretch.rows])
        measured.add(stretch, value)
        inputs = {s: signal(charges, s, stretch.rows) for s in {s for run in runs.values() for s in run.signals}}
        h = hyperparameters(record, stretch)
        if len(index):
            here = inside(kept, stretch.rows)
            parameters[here] = charges.parameters[stretch.rows][kept[here] - stretch.rows.start]
        for run in runs.values():
            run.add(stretch.rows, h, value, inputs, stretch.following(charges))
    table = pd.concat(
        [
            runs[name].table(name, measured, record.rows) if name in runs else _dashes(name, why, sites, record.rows)
            for name, why in reasons.items()
        ]
    )
    unrecorded = [site for site in charges.norm_sites if f"{site} |Q|" not in norms.sites]
    table = pd.concat([table, norm_rows(record, charges, unrecorded, laws, reasons, len(sites.names), block)])
    table.insert(0, "family", family)
    rms = np.sqrt(measured.square[: sites.own].sum() / (record.rows * len(charges)))
    curves = _with_gaps(
        record,
        kept,
        Curves(
            step=record.column("step", kept),
            lr=record.column("lr", kept),
            measured=measured.kept[:, : len(charges)],
            chosen=chosen,
            theory={name: run.kept for name, run in runs.items()},
            error={name: np.sqrt(run.kept_error) / rms if rms else run.kept_error for name, run in runs.items()},
            parameters=parameters,
            singles=tuple((f"{name}[{entry}]", charge) for name, entry, charge in index.itertuples(index=False)),
        ),
    )
    return FamilyComparison(family, table.sort_values("order", kind="stable").drop(columns="order"), curves)


def _with_gaps(record: Record, kept: NDArray[np.int64], curves: Curves) -> Curves:
    """NaN where a window of the record begins, so that no line is drawn over steps that were not recorded."""
    gaps = np.searchsorted(kept, [window.start for window in record.windows[1:]])

    def cut(values: Array) -> Array:
        return np.insert(values, gaps, np.nan, axis=0)

    return replace(
        curves,
        step=np.insert(curves.step, gaps, curves.step[gaps]),
        lr=cut(curves.lr),
        measured=cut(curves.measured),
        theory={name: cut(values) for name, values in curves.theory.items()},
        error={name: cut(values) for name, values in curves.error.items()},
        parameters=cut(curves.parameters),
    )


class _Sites:
    def __init__(self, charges: Charges, norms: Norms) -> None:
        names = [*charges.index["site"], *norms.sites]
        self.codes, unique = pd.factorize(pd.Series(names, dtype=object))
        self.names = list(unique)
        self.own = len(self.names) - len(norms.sites)  # the rest are norms of matrices
        self.norms = norms
        self.counts = np.bincount(self.codes, minlength=len(self.names))

    def sum(self, per_charge: Array) -> Array:
        return np.bincount(self.codes, weights=per_charge, minlength=len(self.names)).astype(np.float64)

    def quantiles(self, per_charge: Array, levels: tuple[float, ...] = (0.1, 0.5, 0.9)) -> Array:
        """Shape (levels, sites)."""
        return pd.Series(per_charge).groupby(self.codes).quantile(list(levels)).unstack().to_numpy().T

    def max(self, per_charge: Array) -> Array:
        out = np.zeros(len(self.names))
        np.maximum.at(out, self.codes, per_charge)
        return out


class _Measured:
    """Running sums over the measured charges, per site."""

    def __init__(self, sites: _Sites, kept: NDArray[np.int64]) -> None:
        self._sites, self._index = sites, kept
        self._start = np.zeros(len(sites.codes))
        self.square = np.zeros(len(sites.names))
        self.motion = np.zeros(len(sites.names))
        self.kept = np.empty((len(kept), len(sites.codes)))

    def add(self, stretch: Stretch, value: Array) -> None:
        rows = stretch.rows
        start = self._start = value[0].copy() if stretch.begins else self._start
        self.square += self._sites.sum(np.einsum("kc,kc->c", value, value))
        moved = value - start
        self.motion += self._sites.sum(np.einsum("kc,kc->c", moved, moved))
        here = inside(self._index, rows)
        self.kept[here] = value[self._index[here] - rows.start]


class _Run:
    """One law running along the record, and its running errors."""

    def __init__(
        self,
        law: Law,
        charges: Charges,
        nesterov: bool,
        sites: _Sites,
        kept: NDArray[np.int64],
        chosen: NDArray[np.int64],
    ) -> None:
        self.signals = law.signals(linear=charges.is_translation, nesterov=nesterov)
        self._integration = Integration(law, linear=charges.is_translation)
        self._charges = len(charges)
        self._sites, self._index, self._chosen = sites, kept, chosen
        self._square = np.zeros(len(sites.codes))
        self._largest = np.zeros(len(sites.names))
        self._final = np.zeros(len(sites.names))
        self.kept = np.empty((len(kept), len(chosen)))
        self.kept_error = np.empty(len(kept))

    def add(
        self,
        rows: slice,
        h: Hyperparameters,
        value: Array,
        signals: Mapping[str, Array],
        following: Array | None,
    ) -> None:
        chosen = [signals[s] for s in self.signals]
        inputs = np.stack(chosen, axis=1) if chosen else np.zeros((len(value), 0, self._charges))
        theory = self._sites.norms.append(self._integration.advance(h, value[0, : self._charges], inputs, following))
        here = inside(self._index, rows)
        at = self._index[here] - rows.start
        self.kept[here] = theory[at][:, self._chosen]
        theory -= value
        self.kept_error[here] = np.mean(theory[at, : self._charges] ** 2, axis=1)
        self._square += np.einsum("kc,kc->c", theory, theory)
        self._largest = np.maximum(self._largest, self._sites.max(np.abs(theory).max(axis=0)))
        self._final = np.sqrt(self._sites.sum(theory[-1] ** 2) / self._sites.counts)

    def table(self, name: str, measured: _Measured, rows: int) -> pd.DataFrame:
        scale = np.sqrt(measured.square / (rows * self._sites.counts))
        square = self._sites.sum(self._square)
        low, median, high = self._sites.quantiles(np.sqrt(self._square / rows))
        return pd.DataFrame(
            {
                "site": self._sites.names,
                "law": name,
                "charges": self._sites.counts,
                "steps": rows,
                "error": _ratio(np.sqrt(square / (rows * self._sites.counts)), scale),
                "unexplained": _ratio(square, measured.motion),
                "max_error": _ratio(self._largest, scale),
                "final_error": _ratio(self._final, scale),
                "q10": _ratio(low, scale),
                "median": _ratio(median, scale),
                "q90": _ratio(high, scale),
                "reason": "",
                "order": np.arange(len(self._sites.names)),
            }
        )


def _dashes(name: str, reason: str, sites: _Sites, rows: int) -> pd.DataFrame:
    """Rows of a law that does not hold: no numbers, and why."""
    empty = dict.fromkeys(("error", "unexplained", "max_error", "final_error", "q10", "median", "q90"), np.nan)
    order = np.arange(len(sites.names))
    plain = {"site": sites.names, "law": name, "charges": sites.counts, "steps": rows}
    return pd.DataFrame({**plain, **empty, "reason": reason, "order": order})


def _ratio(a: Array, b: Array) -> Array:
    """a / b; NaN where there is nothing to compare with."""
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)


def _spread(final: Array, count: int) -> NDArray[np.int64]:
    order = np.argsort(final, kind="stable")
    at = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.int64))
    return order[at]
