"""What adds up along a record: measured charges and each law's errors, per site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from neuralmech.compare.measure.curves import inside
from neuralmech.compare.measure.inputs import ChargeClass, Stretch
from neuralmech.compare.measure.views import Family
from neuralmech.laws.integration import Integration
from neuralmech.laws.system import Array, Hyperparameters, Law

# Columns of numbers in a comparison; the quantiles are over a site's charges.
MEASURES = ("error", "unexplained", "max_error", "final_error")
QUANTILES = ("q10", "median", "q90")
NORM = " |Q|"  # what the name of a site's Frobenius norm ends with


class MatrixNorms:
    """|Q|_F of each site whose matrix is in the record entry by entry (i ≤ j; what lies off the diagonal counts twice).

    Parameters
    ----------
    index
        The charges' index: site, channel and, for matrix-valued charges, partner.

    Attributes
    ----------
    sites
        "<site> |Q|" for each site recorded in full; empty for families that are not matrix-valued.

    Examples
    --------
    >>> index = pd.DataFrame({"site": "a", "channel": [0, 0, 1], "partner": [0, 1, 1]})
    >>> MatrixNorms(index).append(np.array([[1.0, 2.0, 0.0]])).round(3).tolist()
    [[1.0, 2.0, 0.0, 3.0]]
    """

    def __init__(self, index: pd.DataFrame) -> None:
        groups = index.groupby("site", sort=False) if "partner" in index else []
        full = {str(site): rows for site, rows in groups if _is_full(rows)}
        self.sites = [f"{site}{NORM}" for site in full]
        self._weights = np.zeros((len(index), len(full)))
        for i, rows in enumerate(full.values()):
            self._weights[rows.index, i] = np.where(rows["channel"] == rows["partner"], 1.0, 2.0)

    def append(self, value: Float64[Array, "rows charges"]) -> Float64[Array, "rows columns"]:
        """Append a column per site."""
        return np.hstack([value, np.sqrt(value**2 @ self._weights)]) if self.sites else value


def _is_full(rows: pd.DataFrame) -> bool:
    channels = rows["channel"].max() + 1
    return channels > 1 and len(rows) == channels * (channels + 1) // 2  # one entry may be a sample


class Sites:
    """Which site each column belongs to: the charges', then those of the norms of matrices recorded in full.

    Attributes
    ----------
    names, counts
        Of each site, and how many columns it has.
    norms
        What appends the norms to (rows, charges).
    codes
        Number of each column's site.
    own
        How many sites are the charges' own; the rest are norms.
    charges
        How many columns are charges; the rest are norms.
    """

    def __init__(self, charges: Family) -> None:
        self.norms = norms = MatrixNorms(charges.index)
        names = [*charges.index["site"], *norms.sites]
        self.codes, unique = pd.factorize(pd.Series(names, dtype=object))
        self.names = list(unique)
        self.own = len(self.names) - len(norms.sites)
        self.charges = len(charges)
        self.counts = np.bincount(self.codes, minlength=len(self.names))

    def sum(self, per_charge: Float64[Array, " charges"]) -> Float64[Array, " sites"]:
        """Sum over each site's charges."""
        return np.bincount(self.codes, weights=per_charge, minlength=len(self.names)).astype(np.float64)

    def quantiles(
        self, per_charge: Float64[Array, " charges"], levels: tuple[float, ...] = (0.1, 0.5, 0.9)
    ) -> Float64[Array, "levels sites"]:
        """Quantiles over each site's charges."""
        return pd.Series(per_charge).groupby(self.codes).quantile(list(levels)).unstack().to_numpy().T

    def max(self, per_charge: Float64[Array, " charges"]) -> Float64[Array, " sites"]:
        """Largest of each site's charges, of numbers that are not negative."""
        out = np.zeros(len(self.names))
        np.maximum.at(out, self.codes, per_charge)
        return out


class MeasuredSums:
    """Running sums of each column, the measured charges and the norms behind them, and their rows for curves."""

    def __init__(self, charges: Family, sites: Sites, kept: Int64[NDArray, " rows"]) -> None:
        self._charges, self.sites, self._index = charges, sites, kept
        self._start = np.zeros(len(sites.codes))
        self.square, self.motion = np.zeros(len(sites.codes)), np.zeros(len(sites.codes))
        self.kept = np.empty((len(kept), len(sites.codes)))
        self.parameters = np.empty((len(kept), len(charges.parameter_index)))

    def read(self, stretch: Stretch) -> Float64[Array, "rows columns"]:
        """Take in the next rows, and return them with the norms behind the charges."""
        rows = stretch.rows
        value = self.sites.norms.append(self._charges.value[rows])
        start = self._start = value[0].copy() if stretch.begins else self._start
        moved = value - start
        self.square += np.einsum("kc,kc->c", value, value)
        self.motion += np.einsum("kc,kc->c", moved, moved)
        here = inside(self._index, rows)
        at = self._index[here] - rows.start
        self.kept[here] = value[at]
        if self.parameters.shape[1]:
            self.parameters[here] = self._charges.parameters[rows][at]
        return value

    def rms(self, rows: int) -> float:
        """Over all charges and so many rows."""
        return float(np.sqrt(self.square[: self.sites.charges].sum() / (rows * self.sites.charges)))


class LawErrors:
    """One law running along the record, class by class, and its running errors over the charges for which it holds.

    Attributes
    ----------
    signals
        What drives it.
    holds
        For which columns there is a law: (columns,).
    counts
        How many of each site's columns these are.
    """

    def __init__(
        self,
        law: Law,
        charges: Family,
        classes: Sequence[ChargeClass],
        sites: Sites,
        kept: Int64[NDArray, " kept"],
        chosen: Int64[NDArray, " chosen"],
    ) -> None:
        translation = charges.is_translation
        self._runs = []
        for of in classes:
            own, c = law.within(of.circumstances), of.circumstances
            if not own.reason(c):
                names = own.signals(c)
                self._runs.append((of, names, Integration(own, translation=translation, signals=names)))
        self.signals = tuple(dict.fromkeys(name for _, names, _ in self._runs for name in names))
        self._charges = len(charges)
        held = np.full((1, self._charges), np.nan)
        for of, _, _ in self._runs:
            held[:, of.columns] = 0.0
        self.holds = np.isfinite(sites.norms.append(held)[0])
        self.counts = np.bincount(sites.codes[self.holds], minlength=len(sites.names))
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
        value: Float64[Array, "rows columns"],
        signals: Mapping[str, Float64[Array, "rows charges"]],
        following: Float64[Array, " charges"] | None,
    ) -> None:
        """Advance over the next rows, of which `value` was measured, and add up how far the law is from it."""
        theory = self._sites.norms.append(self._theory(h, value[0, : self._charges], signals, following))
        here = inside(self._index, rows)
        at = self._index[here] - rows.start
        self.kept[here] = theory[at][:, self._chosen]
        theory -= value
        theory[:, ~self.holds] = 0.0
        held = self.holds[: self._charges]
        self.kept_error[here] = np.mean(theory[at][:, : self._charges][:, held] ** 2, axis=1)
        self._square += np.einsum("kc,kc->c", theory, theory)
        self._largest = np.maximum(self._largest, self._sites.max(np.abs(theory).max(axis=0)))
        self._final = np.sqrt(self._sites.sum(theory[-1] ** 2) / np.maximum(self.counts, 1))

    def _theory(self, h: Hyperparameters, value: Array, signals: Mapping[str, Array], following: Array | None) -> Array:
        """Charges by the law at some rows, NaN of those for which it does not hold: (rows, charges)."""
        out = np.full((len(h), self._charges), np.nan)
        for of, names, run in self._runs:
            own = of.hyperparameters(h)
            inputs = np.empty((len(h), len(names), len(value[of.columns])))
            for i, name in enumerate(names):
                inputs[:, i] = signals[name][:, of.columns]
            ahead = None if following is None else following[of.columns]
            out[:, of.columns] = run.advance(own, value[of.columns], inputs, ahead)
        return out

    def table(self, name: str, measured: MeasuredSums, rows: int) -> pd.DataFrame:
        """One row per site, over the charges for which the law holds."""
        square, low, median, high = self._sites.sum(self._square), *self._sites.quantiles(self._root_mean_square(rows))
        size, motion = (self._sites.sum(np.where(self.holds, of, 0.0)) for of in (measured.square, measured.motion))
        some = np.maximum(self.counts, 1)
        scale = np.sqrt(size / (rows * some))
        numbers = {
            "error": _ratio(np.sqrt(square / (rows * some)), scale),
            "unexplained": _ratio(square, motion),
            "max_error": _ratio(self._largest, scale),
            "final_error": _ratio(self._final, scale),
            "q10": _ratio(low, scale),
            "median": _ratio(median, scale),
            "q90": _ratio(high, scale),
        }
        plain = {"site": self._sites.names, "law": name, "charges": self._sites.counts, "steps": rows}
        return pd.DataFrame({**plain, **numbers, "reason": "", "order": np.arange(len(self._sites.names))})

    def _root_mean_square(self, rows: int) -> Array:
        """Of each column's error; NaN where there is no law, which quantiles leave out."""
        return np.where(self.holds, np.sqrt(self._square / rows), np.nan)


def dashes(name: str, reason: str, sites: Sites, rows: int) -> pd.DataFrame:
    """Rows of a law that does not hold: no numbers, and why."""
    empty = dict.fromkeys((*MEASURES, *QUANTILES), np.nan)
    order = np.arange(len(sites.names))
    plain = {"site": sites.names, "law": name, "charges": sites.counts, "steps": rows}
    return pd.DataFrame({**plain, **empty, "reason": reason, "order": order})


def _ratio(a: Array, b: Array) -> Array:
    """a / b; NaN where there is nothing to compare with."""
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)
