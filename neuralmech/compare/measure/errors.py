"""Run laws over a record and measure how far they are from it, in blocks: memory does not grow with the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuralmech.compare.measure.curves import Curves, sampled, spread, with_gaps
from neuralmech.compare.measure.inputs import circumstances, hyperparameters, signal, stretches
from neuralmech.compare.measure.sums import MEASURES, QUANTILES, LawErrors, MeasuredSums, Sites, dashes
from neuralmech.laws import LAWS
from neuralmech.laws.system import Array, Integration, Law
from neuralmech.record import Charges, Record, RecordError


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
    RMS error, relative to the site's RMS of measured. Matrix-valued charges get a row for their Frobenius norm: of
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
    reasons = {name: law.reason(c) for name, law in laws.items()}
    sites = Sites(charges)
    kept = sampled(record.rows)
    chosen = spread(charges.value[record.rows - 1], lines)
    measured = MeasuredSums(charges, sites, kept)
    holding = {name: law for name, law in laws.items() if not reasons[name]}
    errors = {name: LawErrors(law, charges, c.nesterov, sites, kept, chosen) for name, law in holding.items()}
    _integrate(record, charges, measured, errors, block)
    table = pd.concat(
        [
            *_rows_per_law(errors, reasons, measured, sites, record.rows),
            _norm_rows(record, charges, sites, laws, reasons, block),
        ]
    )
    table.insert(0, "family", family)
    table = table.sort_values("order", kind="stable").drop(columns="order")
    return FamilyComparison(family, table, _curves(record, charges, kept, chosen, measured, errors))


def _integrate(
    record: Record, charges: Charges, measured: MeasuredSums, errors: Mapping[str, LawErrors], block: int
) -> None:
    """Read the record once, block by block, and run every law along it."""
    needed = {s for law in errors.values() for s in law.signals}
    for stretch in stretches(record, block):
        value = measured.read(stretch)
        inputs = {name: signal(charges, name, stretch.rows) for name in needed}
        h, following = hyperparameters(record, stretch), stretch.following(charges)
        for law in errors.values():
            law.add(stretch.rows, h, value, inputs, following)


def _rows_per_law(
    errors: Mapping[str, LawErrors], reasons: Mapping[str, str], measured: MeasuredSums, sites: Sites, rows: int
) -> list[pd.DataFrame]:
    return [
        errors[name].table(name, measured, rows) if name in errors else dashes(name, why, sites, rows)
        for name, why in reasons.items()
    ]


def _norm_rows(
    record: Record, charges: Charges, sites: Sites, laws: Mapping[str, Law], reasons: Mapping[str, str], block: int
) -> pd.DataFrame:
    """Rows for the norms of sites whose matrices are not in the record entry by entry, numbered after the others.

    The norms are compared where they were measured. A law without a drive multiplies every entry of the matrix by the
    same number, and so the norm. A drive is a matrix of its own, of which the record holds the diagonal only: such a
    law is a dash.
    """
    names = [site for site in charges.norm_sites if f"{site} |Q|" not in sites.norms.sites]
    if not names:
        return pd.DataFrame()
    columns = [charges.norm_sites.index(site) for site in names]
    order = len(sites.names) + np.arange(len(names))
    tables = []
    for name, law in laws.items():
        why = reasons[name]
        if not why and law.inputs:
            why = "a drive needs the whole matrix; train with a larger track.full"
        numbers = (np.zeros((0, len(names))),) * 3 if why else _norms(record, charges, columns, law, block)
        if not why and not len(numbers[0]):
            why = "no norms were measured; train with track.norms=16"
        tables.append(_norm_table(name, why, names, *numbers).assign(order=order))
    return pd.concat(tables)


def _norms(record: Record, charges: Charges, columns: list[int], law: Law, block: int) -> tuple[Array, Array, Array]:
    """Theory − measured, measured, and its motion, at the rows where the norms were measured: (rows, sites) each."""
    run, off, kept, moved, start = Integration(law, translation=False), [], [], [], np.zeros(len(columns))
    for stretch in stretches(record, block):
        norms = charges.frobenius[stretch.rows][:, columns]
        h = hyperparameters(record, stretch)
        start = norms[0] if stretch.begins else start
        theory = run.advance(h, norms[0], np.zeros((len(h), 0, len(columns))), norms[0] if stretch.begins else None)
        there = np.isfinite(norms).all(axis=1)
        off.append((theory - norms)[there])
        kept.append(norms[there])
        moved.append((norms - start)[there])
    return np.concatenate(off), np.concatenate(kept), np.concatenate(moved)


def _norm_table(name: str, why: str, sites: Sequence[str], off: Array, measured: Array, motion: Array) -> pd.DataFrame:
    table = pd.DataFrame({"site": [f"{site} |Q|" for site in sites], "law": name, "charges": 1, "steps": len(measured)})
    table = table.assign(**dict.fromkeys((*MEASURES, *QUANTILES), np.nan), reason=why)
    if len(measured):
        scale = np.sqrt((measured**2).mean(axis=0))
        moved = (motion**2).sum(axis=0)
        table["error"] = np.sqrt((off**2).mean(axis=0)) / scale
        table["unexplained"] = (off**2).sum(axis=0) / np.where(moved > 0, moved, np.nan)
        table["max_error"] = np.abs(off).max(axis=0) / scale
        table["final_error"] = np.abs(off[-1]) / scale
        for quantile in QUANTILES:
            table[quantile] = table["error"]
    return table


def _curves(
    record: Record,
    charges: Charges,
    kept: NDArray[np.int64],
    chosen: NDArray[np.int64],
    measured: MeasuredSums,
    errors: Mapping[str, LawErrors],
) -> Curves:
    rms = measured.rms(record.rows)
    singles = charges.parameter_index.itertuples(index=False)
    curves = Curves(
        step=record.column("step", kept),
        lr=record.column("lr", kept),
        measured=measured.kept[:, : len(charges)],
        chosen=chosen,
        theory={name: law.kept for name, law in errors.items()},
        error={name: np.sqrt(law.kept_error) / rms if rms else law.kept_error for name, law in errors.items()},
        parameters=measured.parameters,
        singles=tuple((f"{name}[{entry}]", charge) for name, entry, charge in singles),
    )
    return with_gaps(record, kept, curves)
