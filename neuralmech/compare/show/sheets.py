"""What the tables of an analysis say, sheet by sheet; `formats` and `report` write them down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from neuralmech.compare.measure.accounts import CAUSES, THROUGH_MEMORY
from neuralmech.compare.measure.verdict import law_scores, moved_by
from neuralmech.compare.show.cells import DASH, Cell, Footnotes, Sheet, cell, chosen_laws, law_cells, number
from neuralmech.laws import LAWS
from neuralmech.laws.kinds import MEANS

if TYPE_CHECKING:
    from neuralmech.compare.gather.analysis import Analysis

KINDS_MEAN = f"{'; '.join(f'{kind[0].upper()} {kind}: {means}' for kind, means in MEANS.items())}."
MEANINGS = {
    "error": "RMS over steps and charges of (theory − measured), relative to the RMS of measured.",
    "unexplained": (
        "Σ(theory − measured)² / Σ(measured − measured at the start)²: 0 is perfect, 1 is no better than conserved."
    ),
}


def sheets_of(analysis: Analysis) -> list[Sheet]:
    """The tables of the documents, in order."""
    sheets = [law_sheet(analysis.comparison, analysis.keys, analysis.verdict)]
    sheets += comparison_sheets(analysis.comparison, analysis.keys, analysis.verdict)
    sheets.append(budget_sheet(analysis.budget, analysis.keys))
    if len(analysis.summary):
        sheets.insert(0, summary_sheet(analysis.summary))
    if len(analysis.seeds):
        sheets.append(seed_sheet(analysis.seeds))
    if len(analysis.batches.table):
        sheets.append(batch_sheet(analysis.batches.table))
    if len(analysis.equilibrium):
        sheets.append(equilibrium_sheet(analysis.equilibrium, analysis.keys))
    if len(analysis.kinetic):
        sheets.append(kinetic_sheet(analysis.kinetic))
    if len(analysis.oscillator):
        sheets.append(oscillator_sheet(analysis.oscillator))
    if len(analysis.rotations):
        sheets.append(rotation_sheet(analysis.rotations))
    if len(analysis.noise_equilibrium):
        sheets.append(orbit_sheet(analysis.noise_equilibrium))
    if len(analysis.loss):
        sheets.append(loss_sheet(analysis.loss))
    return [*sheets, run_sheet(analysis.runs)]


def law_sheet(table: pd.DataFrame, keys: Sequence[str], verdict: pd.DataFrame) -> Sheet:
    """How well each law does for each family: a row per run, family and law."""
    best, rows = chosen_laws(verdict, keys), []
    for values, group in table.groupby([*keys, "family"], sort=False, dropna=False):
        owner = [v.item() if isinstance(v, np.generic) else v for v in values]
        for law, of in law_scores(group).iterrows():
            bold = (*owner, law) in best
            label = Cell(LAWS[str(law)].label, LAWS[str(law)].label, bold)
            numbers = [Cell(number(of["error"]), of["error"], bold), cell(of["worst"]), cell(of["worst_site"])]
            rows.append([*map(cell, owner), label, cell(of["kind"]), *numbers])
    meaning = (
        "Of each family the laws that answer, in the order in which theory adds to them: RMS of their error over the "
        "sites, and the worst. In bold the law of the verdict. " + KINDS_MEAN
    )
    columns = (*keys, "family", "law", "kind", "error", "worst", "worst site")
    return Sheet("laws_of_families", "laws", meaning, columns, rows, few=(*keys, "family", "law", "kind", "error"))


def comparison_sheets(table: pd.DataFrame, keys: Sequence[str], verdict: pd.DataFrame) -> list[Sheet]:
    """Error and unexplained share, a row per run, family and site, a column per law."""
    sheets = []
    labels: dict[str, str] = {name: law.label for name, law in LAWS.items()}
    named = {labels[law] for *_, law in chosen_laws(verdict, keys)}
    for measure, meaning in MEANINGS.items():
        cells, notes = law_cells(table, keys, verdict, measure)
        rows = [[cell(v) for v in row] for row in cells.itertuples(index=False, name=None)]
        columns = tuple(labels.get(name, name) for name in map(str, cells.columns))
        few = (*keys, "family", "site", *(name for name in columns if name in named))
        best = " The law of each family's verdict is in bold."
        sheets.append(Sheet(measure, f"{measure}, site by site", meaning + best, columns, rows, notes.texts, few))
    return sheets


def budget_sheet(budget: pd.DataFrame, keys: Sequence[str]) -> Sheet:
    """What moved each site's charge, as shares of the motion."""
    shown = budget[[*keys, "family", "site"]].copy()
    shown["moved by"] = [why or moved_by(budget.iloc[[i]]) for i, why in enumerate(budget["reason"])]
    shown[["charges", "motion", "moved"]] = budget[["charges", "motion", "moved"]]
    for name in shown_causes(budget):
        shown[name] = budget[f"share_{name}"]
        if name in THROUGH_MEMORY and budget[THROUGH_MEMORY[name]].any():
            moved = budget["moved"].where((budget["moved"] > 0) & (budget["reason"] == ""))
            shown[f"{name} by memory"] = budget[THROUGH_MEMORY[name]] / moved
    if "oscillation" in budget:
        shown["oscillation of it"] = budget["oscillation"]
    shown["closure"] = budget["share_closure"]
    shown["closure_error"] = budget["closure_error"]
    notes = Footnotes()
    rows = [
        [cell(v, note=notes(reason) if isinstance(v, float) and math.isnan(v) else 0) for v in row]
        for row, reason in zip(shown.itertuples(index=False, name=None), budget["reason"], strict=True)
    ]
    meaning = (
        "moved by: the causes by their shares of all that pushed the charges, up or down. motion is Σ(Q at the end − Q "
        "at the start) over the site's charges, moved is Σ|the same|; the causes are shares of moved and, with the "
        "closure, sum to motion/moved; what of a cause came by the momentum's memory is in it and beside it. rule is "
        "the work of a learning rule that does not share the symmetry, metric_drift what Adam's metric moved as it "
        "changed. oscillation, where it is recorded, is what of discretisation came of "
        "updates that turn back the one before. closure is what is left, closure_error is Σ|closure|/moved."
    )
    few = (*keys, "family", "site", "moved by", "moved")
    return Sheet("budget", "what moved the charges", meaning, tuple(shown.columns), rows, notes.texts, few)


def shown_causes(budget: pd.DataFrame) -> list[str]:
    """Causes that moved anything; decay, discretisation and broken symmetry are always said."""
    return [cause for cause in CAUSES if cause in THROUGH_MEMORY or budget[cause].fillna(0).any()]


def summary_sheet(summary: pd.DataFrame) -> Sheet:
    """The verdicts of a sweep: a row per setting, a column per family."""
    families = [family for family in dict.fromkeys(summary["family"]) if family]
    keys, lost = list(summary.columns[: summary.columns.get_loc("family")]), summary["failed"].any()
    rows = []
    for _, group in summary.groupby(keys, sort=False, dropna=False) if keys else [((), summary)]:
        first, by = group.iloc[0], {row["family"]: row for row in group.to_dict("records")}
        own = [cell(first[key]) for key in keys]
        verdicts = [_summed(by[f]) if f in by else Cell(DASH, math.nan) for f in families]
        jobs = [cell(int(first["runs"])), *([cell(int(first["failed"]))] if lost else [])]
        rows.append([*own, *jobs, _spread(first["accuracy"], first["accuracy_std"], 3), *verdicts])
    meaning = (
        "Of each setting the runs that share it, their held-out accuracy, and per family the simplest law that "
        "suffices with its error: mean ± standard deviation over the runs. F forecast, D driven, A account; ! where "
        "no law suffices in all of them, and this is the nearest; n/m: the law of n of the m runs."
    )
    columns = (*keys, "runs", *(["failed"] if lost else []), "accuracy", *families)
    return Sheet("summary", "verdicts", meaning, columns, rows, few=(*keys, *families))


def _summed(row: Mapping[Any, Any]) -> Cell:
    if not row["law"]:
        still = row["rounding"] == row["sites"]
        return Cell("only rounding" if still else "no law", math.nan)
    agree = f" {row['agree']}/{row['runs']}" if row["agree"] < row["runs"] else ""
    mark = row["kind"][0].upper() + ("" if row["suffices"] else "!")
    return Cell(f"{mark} {LAWS[row['law']].label}{agree} {_spread(row['error'], row['error_std']).text}", row["error"])


def _spread(mean: float, std: float, digits: int = 2) -> Cell:
    """Mean ± standard deviation; the mean alone where there is one run."""
    text = number(float(mean), digits)
    return Cell(text if math.isnan(std) else f"{text} ± {number(float(std), 1)}", float(mean))


def seed_sheet(seeds: pd.DataFrame) -> Sheet:
    """Mean ± standard deviation over seeds."""
    rows = [[cell(v) for v in row] for row in seeds.itertuples(index=False, name=None)]
    meaning = "Mean and standard deviation (n − 1) of the error over runs that differ only by seed."
    return Sheet("seeds", "spread over seeds", meaning, tuple(seeds.columns), rows)


def equilibrium_sheet(table: pd.DataFrame, keys: Sequence[str]) -> Sheet:
    """How near every scale site is to its equilibrium."""
    shown = table.drop(columns=["reason"])
    notes = Footnotes()
    rows = [
        [cell(v, digits=3, note=notes(reason) if i == len(keys) + 1 else 0) for i, v in enumerate(row)]
        for row, reason in zip(shown.itertuples(index=False, name=None), table["reason"], strict=True)
    ]
    meaning = (
        "Over the last quarter of the run, for the filters that still receive gradient (alive): angle between "
        "successive weights, against √(2ηλχ) with χ = 1/(1+β) under SGD, (1−β)/(1+β) under SGDW and AdamW (its β₁), "
        "and by the arcsine law under sign rules; ratio is their quotient, worst_ratio that of the filter farthest "
        "off, within the share that is within 5 %, drift τ(ln Q)' of the filter farthest off (its ratio squared is "
        "1 + drift; 0 where the drive is stationary), radius_ratio Q over its predicted value, √(ηD̂/2λχ), or nη/2λ "
        "(AdamW) and nη/2λχ (signs) for n parameters, and update_ratio D over n (signs) or nχ (AdamW): these two take "
        "gradients for white. In the metric of AdamW nothing is asked of them. A relaxation time τ is (1−β)/(2ηλ) "
        "steps under SGD, 1/(2ηλ) under other rules."
    )
    return Sheet("equilibrium", "distance from equilibrium", meaning, tuple(shown.columns), rows, notes.texts)


def _noted(
    table: pd.DataFrame, noted: str, *, digits: int, hidden: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], list[list[Cell]], tuple[str, ...]]:
    """Columns, rows and footnotes of a table whose reasons are footnotes of one of its columns."""
    notes, shown = Footnotes(), tuple(name for name in table.columns if name not in ("reason", *hidden))
    rows = [
        [cell(v, digits=digits, note=notes(why) if name == noted else 0) for name, v in zip(shown, row, strict=True)]
        for row, why in zip(table[list(shown)].itertuples(index=False, name=None), table["reason"], strict=True)
    ]
    return shown, rows, notes.texts


def kinetic_sheet(table: pd.DataFrame) -> Sheet:
    """Whether the learning rule kept the symmetries."""
    shown, rows, notes = _noted(table, "keeps", digits=3)
    meaning = (
        "Whether the learning rule keeps each symmetry of the loss: whether its update v, without decoupled weight "
        "decay, is orthogonal to the generator. Where theory does not say so, lean is how far v leans on it, "
        "√[Σ(θᵀSv)²/Σ θᵀ|S|θ·vᵀ|S|v] over the charges of the site, RMS over the measured rows: 0: orthogonal, 1: along."
    )
    title = "symmetries that the learning rule keeps"
    return Sheet("kinetic", title, meaning, shown, rows, notes)


def oscillator_sheet(table: pd.DataFrame) -> Sheet:
    """What kind of oscillator the charges are."""
    shown, rows, notes = _noted(table, "regime", digits=3, hidden=("decay",))
    meaning = (
        "The modified flow of a charge is a damped, driven oscillator, Q'' + 2γQ' + ω²Q = drive, in t = Σ η; period "
        "and relaxation (of the slower motion, by a factor e) in steps. Damping ratio: γ/ω; below 1 they oscillate."
    )
    return Sheet("oscillator", "charges as oscillators", meaning, shown, rows, notes)


def rotation_sheet(table: pd.DataFrame) -> Sheet:
    """Angular momenta of rotations between linear maps."""
    shown, rows, notes = _noted(table, "error", digits=2)
    meaning = (
        "Rotations of the channels between linear maps have no charge, but an angular momentum J = ⟨b, Aθ⟩ with the "
        "momentum buffer b, which obeys J ← βJ under SGD: it stays zero from an empty buffer. Largest of a site's, "
        "relative to |b||θ|: at the start, in all rows, and of the difference from the law."
    )
    return Sheet("rotations", "angular momenta of rotations", meaning, shown, rows, notes)


def orbit_sheet(table: pd.DataFrame) -> Sheet:
    """How far rescale pairs are from noise equilibrium."""
    shown, rows, notes = _noted(table, "end", digits=2)
    meaning = (
        "A rescale symmetry leaves the loss the same all along the orbit e^α, e^−α of its pair; weight decay and the "
        "noise of gradients choose a point there. |α*| is how far that is: RMS over the site's charges in the first "
        "and the last fiftieth of the run, and what of the forces in the last is noise and what weight decay."
    )
    return Sheet("noise_equilibrium", "distance to noise equilibrium", meaning, shown, rows, notes)


def loss_sheet(table: pd.DataFrame) -> Sheet:
    """What the loss lost against the work of its gradient."""
    rows = [[cell(v, digits=3) for v in row] for row in table.itertuples(index=False, name=None)]
    meaning = (
        "Full-batch runs: the change of the loss over the run, and the sum over its steps of the gradient's work, to "
        "first order (dL/dt = −⟨g, u⟩) and with the curvature along each step."
    )
    return Sheet("loss_balance", "balance of the loss", meaning, tuple(table.columns), rows)


def batch_sheet(table: pd.DataFrame) -> Sheet:
    """Prediction of one batch size from another."""
    rows = [[cell(v) for v in row] for row in table.itertuples(index=False, name=None)]
    meaning = "The stochastic law at to_batch, driven by the mean gradient and the noise measured at from_batch."
    return Sheet("batches", "predictions for other batch sizes", meaning, tuple(table.columns), rows)


def run_sheet(runs: pd.DataFrame) -> Sheet:
    """One row per job, also of those that failed, with the reason."""
    rows = [[cell(v, digits=3) for v in row] for row in runs.itertuples(index=False, name=None)]
    meaning = "Every job; loss and accuracy on held-out data. A job that failed is not in the other tables."
    return Sheet("runs", "runs", meaning, tuple(runs.columns), rows)
