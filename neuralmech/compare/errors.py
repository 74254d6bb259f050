"""Run laws over a record and measure how far they are from it, in blocks: memory does not grow with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuralmech.compare.curves import Curves, spread, with_gaps
from neuralmech.compare.inputs import circumstances, hyperparameters, sampled, signal, stretches
from neuralmech.compare.norms import norm_rows
from neuralmech.compare.running import Measured, Run, Sites, dashes
from neuralmech.laws import LAWS
from neuralmech.laws.system import Law
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
    reasons = {name: law.reason(c) for name, law in laws.items()}
    sites = Sites(charges)
    kept = sampled(record.rows)
    chosen = spread(charges.value[record.rows - 1], lines)
    measured = Measured(charges, sites, kept)
    runs = {n: Run(law, charges, c.nesterov, sites, kept, chosen) for n, law in laws.items() if not reasons[n]}
    _integrate(record, charges, measured, runs, block)
    table = pd.concat(
        [
            *_rows_per_law(runs, reasons, measured, sites, record.rows),
            norm_rows(record, charges, _unrecorded(charges, sites), laws, reasons, len(sites.names), block),
        ]
    )
    table.insert(0, "family", family)
    table = table.sort_values("order", kind="stable").drop(columns="order")
    return FamilyComparison(family, table, _curves(record, charges, kept, chosen, measured, runs))


def _integrate(record: Record, charges: Charges, measured: Measured, runs: Mapping[str, Run], block: int) -> None:
    """Read the record once, block by block, and run every law along it."""
    needed = {s for run in runs.values() for s in run.signals}
    for stretch in stretches(record, block):
        value = measured.read(stretch)
        inputs = {name: signal(charges, name, stretch.rows) for name in needed}
        h, following = hyperparameters(record, stretch), stretch.following(charges)
        for run in runs.values():
            run.add(stretch.rows, h, value, inputs, following)


def _rows_per_law(
    runs: Mapping[str, Run], reasons: Mapping[str, str], measured: Measured, sites: Sites, rows: int
) -> list[pd.DataFrame]:
    return [
        runs[name].table(name, measured, rows) if name in runs else dashes(name, why, sites, rows)
        for name, why in reasons.items()
    ]


def _unrecorded(charges: Charges, sites: Sites) -> list[str]:
    """Sites whose norm was measured, but not their matrix."""
    return [site for site in charges.norm_sites if f"{site} |Q|" not in sites.norms.sites]


def _curves(
    record: Record,
    charges: Charges,
    kept: NDArray[np.int64],
    chosen: NDArray[np.int64],
    measured: Measured,
    runs: Mapping[str, Run],
) -> Curves:
    rms = measured.rms(record.rows)
    singles = charges.parameter_index.itertuples(index=False)
    curves = Curves(
        step=record.column("step", kept),
        lr=record.column("lr", kept),
        measured=measured.kept[:, : len(charges)],
        chosen=chosen,
        theory={name: run.kept for name, run in runs.items()},
        error={name: np.sqrt(run.kept_error) / rms if rms else run.kept_error for name, run in runs.items()},
        parameters=measured.parameters,
        singles=tuple((f"{name}[{entry}]", charge) for name, entry, charge in singles),
    )
    return with_gaps(record, kept, curves)
