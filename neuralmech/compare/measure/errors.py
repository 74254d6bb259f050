"""Run laws over a record and measure how far they are from it, in blocks: memory does not grow with the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuralmech.compare.measure.curves import Curves, sampled, spread, with_gaps
from neuralmech.compare.measure.inputs import (
    ChargeClass,
    classes,
    hyperparameters,
    resting,
    set_apart,
    signal,
    stretches,
)
from neuralmech.compare.measure.sums import MEASURES, NORM, QUANTILES, LawErrors, MeasuredSums, Sites, dashes
from neuralmech.compare.measure.views import Family
from neuralmech.compare.measure.views import family as family_of
from neuralmech.laws import LAWS
from neuralmech.laws.integration import Integration
from neuralmech.laws.kinds import KINDS, kind
from neuralmech.laws.system import Array, Law
from neuralmech.record import Record, RecordError

UNEVEN = "parameters of one charge decay at different rates: what decays, θᵀSκθ, is measured, an input of the law"


@dataclass(frozen=True)
class FamilyComparison:
    """One family of one run: a table row per site and law, curves, and the classes of its charges."""

    family: str
    table: pd.DataFrame
    curves: Curves
    classes: list[ChargeClass]


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
    charges = family_of(record, family)
    of = set_apart(classes(record, charges), resting(record, charges, block))
    laws = {name: law for name, law in laws.items() if any(law.is_shown(one.circumstances) for one in of)}
    sites = Sites(charges)
    kept = sampled(record.rows)
    chosen = spread(charges.value[record.rows - 1], lines)
    measured = MeasuredSums(charges, sites, kept)
    every = {name: LawErrors(law, charges, of, sites, kept, chosen) for name, law in laws.items()}
    errors = {name: law for name, law in every.items() if law.holds.any()}
    _integrate(record, charges, measured, errors, block)
    rows = [_rows(name, law, every[name], measured, of, record.rows) for name, law in laws.items()]
    table = pd.concat([*rows, _norm_rows(record, charges, sites, laws, of, block)])
    table.insert(0, "family", family)
    table = table.sort_values("order", kind="stable").drop(columns="order")
    return FamilyComparison(family, table, _curves(record, charges, kept, chosen, measured, errors), of)


def _integrate(
    record: Record, charges: Family, measured: MeasuredSums, errors: Mapping[str, LawErrors], block: int
) -> None:
    """Read the record once, block by block, and run every law along it."""
    needed = {s for law in errors.values() for s in law.signals}
    for stretch in stretches(record, block):
        value = measured.read(stretch)
        inputs = {name: signal(record, charges, name, stretch) for name in needed}
        h, following = hyperparameters(record, stretch), stretch.following(charges)
        for law in errors.values():
            law.add(stretch.rows, h, value, inputs, following)


def _reason(law: Law, of: Iterable[ChargeClass]) -> str:
    """Why a law does not hold for the first of some classes for which it does not."""
    reasons = (law.within(one.circumstances).reason(one.circumstances) for one in of)
    return next((why for why in reasons if why), "")


def _rows(
    name: str, law: Law, errors: LawErrors, measured: MeasuredSums, of: Sequence[ChargeClass], rows: int
) -> pd.DataFrame:
    """A row per site, and of which kind the law is there."""
    return _answers(name, law, errors, measured, of, rows).assign(kind=_kinds(law, measured.sites, of))


def _kinds(law: Law, sites: Sites, of: Sequence[ChargeClass]) -> list[str]:
    """Of each site, by the class for which the law takes most."""
    ranks = [KINDS.index(kind(law, one.circumstances)) for one in of]
    taken = np.full(len(sites.names), -1)
    for one, rank in zip(of, ranks, strict=True):
        mine = np.unique(sites.codes[: sites.charges][one.columns])
        taken[mine] = np.maximum(taken[mine], rank)
    return [KINDS[rank if rank >= 0 else max(ranks)] for rank in taken]


def _answers(
    name: str, law: Law, errors: LawErrors, measured: MeasuredSums, of: Sequence[ChargeClass], rows: int
) -> pd.DataFrame:
    """A row per site; where the law holds for no charge of a site, a dash and why."""
    sites = measured.sites
    if errors.holds.all() and not any(one.circumstances.mixed for one in of):
        return errors.table(name, measured, rows)
    held = errors.counts > 0
    why = np.full(len(sites.names), _reason(law, of), dtype=object)
    for one in of:
        if reason := _reason(law, [one]):
            why[np.unique(sites.codes[: sites.charges][one.columns])] = reason
    table = errors.table(name, measured, rows) if held.any() else dashes(name, "", sites, rows)
    table["reason"] = np.where(held, _footnotes(errors, sites, why, of), why)
    return table


def _footnotes(errors: LawErrors, sites: Sites, why: NDArray, of: Sequence[ChargeClass]) -> list[str]:
    """What is to be said of an error: of how many charges it is, and what more the law takes from the record."""
    mixed = np.zeros(len(sites.codes), dtype=bool)
    for one in of:
        mixed[: sites.charges][one.columns] = one.circumstances.mixed
    given = np.bincount(sites.codes[errors.holds & mixed], minlength=len(sites.names)) > 0
    texts = []
    for n, all_of_them, reason, takes in zip(errors.counts, sites.counts, why, given, strict=True):
        some = f"of {n} of the {all_of_them} charges; of the others: {reason}" if n < all_of_them else ""
        texts.append("; ".join(part for part in (some, UNEVEN if takes else "") if part))
    return texts


def _norm_rows(
    record: Record, charges: Family, sites: Sites, laws: Mapping[str, Law], of: Sequence[ChargeClass], block: int
) -> pd.DataFrame:
    """Rows for the norms of sites whose matrices are not in the record entry by entry, numbered after the others.

    The norms are compared where they were measured. A law without a drive multiplies every entry of the matrix by the
    same number, and so the norm. A drive is a matrix of its own, of which the record holds the diagonal only: such a
    law is a dash.
    """
    names = [site for site in charges.norm_sites if f"{site}{NORM}" not in sites.norms.sites]
    if not names:
        return pd.DataFrame()
    tables, first = [], len(sites.names)
    for name, law in laws.items():
        for one in of:  # a site's entries are of one class
            mine = [site for site in names if site in set(charges.index["site"].to_numpy()[one.columns])]
            if not mine:
                continue
            why = _reason(law, [one])
            if not why and law.within(one.circumstances).signals(one.circumstances):
                why = "a drive needs the whole matrix; train with a larger track.full"
            columns = [charges.norm_sites.index(site) for site in mine]
            numbers = _norms(record, charges, columns, law, one, block) if not why else (np.zeros((0, len(mine))),) * 3
            if not why and not len(numbers[0]):
                why = "no norms were measured; train with track.norms=16"
            order = first + np.array([names.index(site) for site in mine])
            own = kind(law, one.circumstances)
            tables.append(_norm_table(name, why, mine, *numbers).assign(order=order, kind=own))
    return pd.concat(tables)


def _norms(
    record: Record, charges: Family, columns: list[int], law: Law, of: ChargeClass, block: int
) -> tuple[Array, Array, Array]:
    """Theory − measured, measured, and its motion, at the rows where the norms were measured: (rows, sites) each."""
    run, off, kept, moved, start = Integration(law, translation=False), [], [], [], np.zeros(len(columns))
    for stretch in stretches(record, block):
        norms = charges.frobenius[stretch.rows][:, columns]
        h = of.hyperparameters(hyperparameters(record, stretch))
        start = norms[0] if stretch.begins else start
        theory = run.advance(h, norms[0], np.zeros((len(h), 0, len(columns))), norms[0] if stretch.begins else None)
        there = np.isfinite(norms).all(axis=1)
        off.append((theory - norms)[there])
        kept.append(norms[there])
        moved.append((norms - start)[there])
    return np.concatenate(off), np.concatenate(kept), np.concatenate(moved)


def _norm_table(name: str, why: str, sites: Sequence[str], off: Array, measured: Array, motion: Array) -> pd.DataFrame:
    table = pd.DataFrame(
        {"site": [f"{site}{NORM}" for site in sites], "law": name, "charges": 1, "steps": len(measured)}
    )
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


def _charge_name(of: Mapping[Any, Any]) -> str:
    entry = ",".join(str(of[at]) for at in ("channel", "partner") if at in of)
    return f"{of['site']}[{entry}]"


def _curves(
    record: Record,
    charges: Family,
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
        names=tuple(map(_charge_name, charges.index.iloc[chosen].to_dict("records"))),
        theory={name: law.kept for name, law in errors.items()},
        error={name: np.sqrt(law.kept_error) / rms if rms else law.kept_error for name, law in errors.items()},
        parameters=measured.parameters,
        singles=tuple((f"{name}[{entry}]", charge) for name, entry, charge in singles),
    )
    return with_gaps(record, kept, curves)
