"""What the tables say, free of any format: sheets of cells, which `formats` and `report` write down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from neuralmech.compare.budget import ORIGINS, PARTS

SYMBOLS = {"optim.lr": "η", "optim.momentum": "β", "optim.weight_decay": "λ", "data.batch_size": "S"}
DASH = "–"
TIE = 1.01  # laws this close to the best are as good
MEANINGS = {
    "error": "RMS over steps and charges of (theory − measured), relative to the RMS of measured.",
    "unexplained": (
        "Σ(theory − measured)² / Σ(measured − measured at the start)²: 0 is perfect, 1 is no better than conserved."
    ),
}


@dataclass(frozen=True)
class Cell:
    """One entry: its text, what to sort by, and the number of its footnote (0: none)."""

    text: str
    value: object = ""
    bold: bool = False
    note: int = 0


@dataclass(frozen=True)
class Sheet:
    """A table ready to be written in any format."""

    name: str
    title: str
    meaning: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    footnotes: tuple[str, ...] = ()


def number(value: object, digits: int = 2) -> str:
    """Two significant digits, or `digits`; a dash where there is nothing to compare with.

    Examples
    --------
    >>> [number(v) for v in (0.0123, 3.2e-7, 1, float("nan"), "batch")]
    ['0.012', '3.2e-07', '1', '–', 'batch']
    """
    if isinstance(value, float):
        if math.isnan(value):
            return DASH
        plain = value == 0 or 1e-2 <= abs(value) < 1e3
        return f"{value:.{digits}g}" if plain else f"{value:.{digits - 1}e}"
    return str(value)


def label_text(label: Mapping[str, object]) -> str:
    """What tells a run from the others of its sweep, short enough for a figure.

    Examples
    --------
    >>> label_text({"optim.lr": 0.1, "optim.momentum": 0.9, "model.norm": "batch"})
    'η = 0.1, β = 0.9, norm = batch'
    """
    names = {key: SYMBOLS.get(key, key.rpartition(".")[2]) for key in label}
    if len(set(names.values())) < len(names):
        names = {key: SYMBOLS.get(key, key) for key in label}
    values = {k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in label.items()}
    return ", ".join(f"{names[key]} = {values[key]}" for key in label)


def wide(table: pd.DataFrame, keys: Sequence[str], measure: str = "error") -> pd.DataFrame:
    """One row per run, family and site, one column per law."""
    index = [*keys, "family", "site", "charges"]
    laws = list(dict.fromkeys(table["law"]))
    rows = table.set_index([*index, "law"])[measure].unstack("law", sort=False)
    return rows[laws].reset_index()


def best_laws(table: pd.DataFrame, keys: Sequence[str]) -> set[tuple]:
    """(keys…, family, law) of the law with the least RMS error over the sites of each family of each run, and its ties.

    A law that does not answer for a site of the family is no candidate; where no law has an error, none is best.
    """
    by = [*keys, "family"]
    square = table.assign(square=table["error"] ** 2)
    scores = square.groupby([*by, "law"], sort=False, dropna=False)["square"].agg(lambda e: e.mean(skipna=False))
    scores = scores.dropna().pow(0.5).reset_index()
    least = scores.groupby(by, sort=False, dropna=False)["square"].transform("min")
    best = scores[scores["square"] <= TIE * least]
    return set(best[[*by, "law"]].itertuples(index=False, name=None))


class Footnotes:
    """Numbers each distinct reason once, in order of appearance."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, reason: object) -> int:
        """Number of a reason; 0 for none."""
        if not isinstance(reason, str) or not reason:
            return 0
        return self._numbers.setdefault(reason, len(self._numbers) + 1)

    @property
    def texts(self) -> tuple[str, ...]:
        """The reasons in the order of their numbers."""
        return tuple(self._numbers)


def law_cells(
    table: pd.DataFrame, keys: Sequence[str], measure: str = "error", digits: int = 2
) -> tuple[pd.DataFrame, Footnotes]:
    """As `wide`, with a `Cell` for each law: the best law per family in bold, a footnote where a law does not hold."""
    values, reasons = wide(table, keys, measure), wide(table, keys, "reason")
    best, notes = best_laws(table, keys), Footnotes()
    laws = list(dict.fromkeys(table["law"]))
    owners = list(values[[*keys, "family"]].itertuples(index=False, name=None))
    for law in laws:
        cells = [
            Cell(number(v, digits), v, (*owner, law) in best and not math.isnan(v), notes(reason))
            for owner, v, reason in zip(owners, values[law], reasons[law], strict=True)
        ]
        values[law] = pd.Series(cells, index=values.index, dtype=object)
    return values, notes


def comparison_sheets(table: pd.DataFrame, keys: Sequence[str]) -> list[Sheet]:
    """Error and unexplained share, a row per run, family and site, a column per law."""
    sheets = []
    for measure, meaning in MEANINGS.items():
        cells, notes = law_cells(table, keys, measure)
        rows = [[_cell(v) for v in row] for row in cells.itertuples(index=False, name=None)]
        best = " The best law of each family is in bold."
        sheets.append(Sheet(measure, measure, meaning + best, tuple(cells.columns), rows, notes.texts))
    return sheets


def budget_sheet(budget: pd.DataFrame, keys: Sequence[str]) -> Sheet:
    """What moved each site's charge, as shares of the motion."""
    parts = [*PARTS, "closure"]
    shown = budget[[*keys, "family", "site", "charges", "motion", "moved"]].copy()
    for name in parts:
        shown[name] = budget[f"share_{name}"]
    shown["closure_error"] = budget["closure_error"]
    notes = Footnotes()
    rows = [
        [_cell(v, note=notes(reason) if isinstance(v, float) and math.isnan(v) else 0) for v in row]
        for row, reason in zip(shown.itertuples(index=False, name=None), budget["reason"], strict=True)
    ]
    meaning = (
        "motion is Σ(Q at the end − Q at the start) over the site's charges, moved is Σ|the same|; the causes are "
        "shares of moved and sum to motion/moved. closure is what they leave, closure_error is Σ|closure|/moved. "
        f"budget.csv has absolute numbers and splits the momentum memory into {', '.join(ORIGINS)}."
    )
    return Sheet("budget", "what moved the charges", meaning, tuple(shown.columns), rows, notes.texts)


def seed_table(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean and standard deviation of the error over runs that differ only by seed; empty if there are none."""
    rest = [k for k in keys if k not in ("seed", "run")]
    by = [*rest, "family", "site", "law"]
    errors = table.groupby(by, sort=False, dropna=False)["error"].agg(seeds="size", mean="mean", std="std")
    seeds = errors.reset_index()
    several = "seed" in keys
    return seeds[(seeds["seeds"] > 1) & several].reset_index(drop=True)


def seed_sheet(seeds: pd.DataFrame) -> Sheet:
    """Mean ± standard deviation over seeds."""
    rows = [[_cell(v) for v in row] for row in seeds.itertuples(index=False, name=None)]
    meaning = "Mean and standard deviation (n − 1) of the error over runs that differ only by seed."
    return Sheet("seeds", "spread over seeds", meaning, tuple(seeds.columns), rows)


def equilibrium_sheet(table: pd.DataFrame, keys: Sequence[str]) -> Sheet:
    """How near every scale site is to its equilibrium."""
    shown = table.drop(columns=["reason"])
    notes = Footnotes()
    rows = [
        [_cell(v, digits=3, note=notes(reason) if i == len(keys) + 1 else 0) for i, v in enumerate(row)]
        for row, reason in zip(shown.itertuples(index=False, name=None), table["reason"], strict=True)
    ]
    meaning = (
        "Over the last quarter of the run, for the filters that still receive gradient (alive): angle between "
        "successive weights, against √(2ηλ/(1+β)); ratio is their quotient, worst_ratio that of the filter farthest "
        "off, within the share that is within 5 %, drift τ(ln Q)' of the filter farthest off (its ratio squared is "
        "1 + drift; 0 where the drive is stationary), radius_ratio Q over √(η(1+β)D̂/2λ). A relaxation time τ is "
        "(1−β)/(2ηλ) steps."
    )
    return Sheet("equilibrium", "distance from equilibrium", meaning, tuple(shown.columns), rows, notes.texts)


def loss_sheet(table: pd.DataFrame) -> Sheet:
    """What the loss lost against the work of its gradient."""
    rows = [[_cell(v, digits=3) for v in row] for row in table.itertuples(index=False, name=None)]
    meaning = (
        "Full-batch runs: the change of the loss over the run, and the sum over its steps of the gradient's work, to "
        "first order (dL/dt = −⟨g, u⟩) and with the curvature along each step."
    )
    return Sheet("loss_balance", "balance of the loss", meaning, tuple(table.columns), rows)


def batch_sheet(table: pd.DataFrame) -> Sheet:
    """Prediction of one batch size from another."""
    rows = [[_cell(v) for v in row] for row in table.itertuples(index=False, name=None)]
    meaning = "The stochastic law at to_batch, driven by the mean gradient and the noise measured at from_batch."
    return Sheet("batches", "predictions for other batch sizes", meaning, tuple(table.columns), rows)


def run_sheet(runs: pd.DataFrame) -> Sheet:
    """One row per job, also of those that failed, with the reason."""
    rows = [[_cell(v, digits=3) for v in row] for row in runs.itertuples(index=False, name=None)]
    meaning = "Every job; loss and accuracy on held-out data. A job that failed is not in the other tables."
    return Sheet("runs", "runs", meaning, tuple(runs.columns), rows)


def _cell(value: object, digits: int = 2, note: int = 0) -> Cell:
    if isinstance(value, Cell):
        return value
    plain = value.item() if isinstance(value, np.generic) else value
    return Cell(number(plain, digits), plain, note=note)
