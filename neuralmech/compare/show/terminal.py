"""What the terminal shows of an analysis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from neuralmech.compare.measure.accounts import THROUGH_MEMORY
from neuralmech.compare.show.cells import DASH, Cell, Footnotes, law_cells, number
from neuralmech.compare.show.sheets import shown_causes
from neuralmech.laws import LAWS
from neuralmech.record.schema import held_out

if TYPE_CHECKING:
    from neuralmech.compare.gather.analysis import Analysis

MAX_ROWS = 60


def show_analysis(analysis: Analysis, console: Console | None = None) -> None:
    """Print the comparison: per run a row per site and a column per law; then the files."""
    console = console or Console()
    raised = _raised_in(console)
    rows, footnotes = law_cells(analysis.comparison, analysis.keys, digits=1)
    hidden = len(rows) > MAX_ROWS
    if hidden:
        rows = _worst_sites(rows, analysis.keys)
    analysed = analysis.runs[analysis.runs["steps"] > 0]
    groups = rows.groupby(list(analysis.keys), sort=False, dropna=False) if analysis.keys else [((), rows)]
    for (values, group), run in zip(groups, analysed.itertuples(index=False), strict=True):
        labels = ", ".join(f"{k} = {number(v)}" for k, v in zip(analysis.keys, values, strict=True))
        say(console, f"\n{labels or analysis.folder.name}", style="bold")
        say(
            console,
            f"{run.steps} steps, {run.status}; {held_out(run.loss, run.accuracy)}",
        )
        print_parts(console, [n for n in LAWS if n in group], lambda laws, group=group: _law_table(group, laws, raised))
    say(console, "Relative RMS error of each law over steps and charges; 0 is perfect; each family's best in bold.")
    for i, reason in enumerate(footnotes.texts, start=1):
        say(console, f"{raised(i)} {reason}")
    if hidden:
        say(console, "Worst site of each family; every site is in comparison.csv.")
    if "discrete_broken" in rows:
        say(console, "discrete + R takes the measured breaking of the symmetry, the residual R, as an input.")
    if "moving_metric" in rows:
        say(
            console,
            "moving metric takes what Adam's metric w does, F and E, as inputs, and predicts the momentum; constant "
            "metric leaves E out: what a metric that stood still would do.",
        )
    if not analysis.keys:
        say(console, "\nWhat moved the charges, as shares of how far they moved:")
        said = len(footnotes.texts)
        columns = _budget_columns(analysis.budget)

        def table(parts: list[str]) -> Table:
            return _budget_table(analysis.budget, [columns[part] for part in parts], footnotes, raised)

        print_parts(console, list(columns), table)
        for i, reason in enumerate(footnotes.texts[said:], start=said + 1):
            say(console, f"{raised(i)} {reason}")
    for note in analysis.notes:
        say(console, f"Note: {note}")
    say(console, "\nWritten:")
    for file in analysis.files:
        say(console, f"  {file}")


def say(console: Console, text: str, **style: str) -> None:
    """Print text as it is: no markup, no wrapping of paths."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, **style)  # type: ignore[arg-type]


def _worst_sites(rows: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    """One row per family: its worst site's error for each law; sites of which no law says anything do not count."""
    by, laws = [*keys, "family"], [c for c in rows.columns if c in LAWS]
    answered = rows[laws].map(lambda cell: not math.isnan(cell.value)).any(axis=1)
    some = answered.groupby([rows[k] for k in by], sort=False, dropna=False).transform("any")
    grouped = rows[answered | ~some].groupby(by, sort=False, dropna=False)
    worst = grouped.agg({"site": "size", "charges": "sum", **dict.fromkeys(laws, _worst)}).reset_index()
    return worst.assign(site=[f"worst of {n} sites" for n in worst["site"]])


def _worst(cells: pd.Series) -> Cell:
    """The cell with the largest error; a law that does not hold at one site shows its dash."""
    values = cells.map(lambda cell: cell.value).astype(float)
    return cells[values.idxmax() if values.notna().all() else values.isna().idxmax()]


def print_parts(console: Console, columns: list[str], table: Callable[[list[str]], Table]) -> None:
    """Print a table, below each other in parts where it is wider than the terminal, which would cut columns off."""
    while columns:
        count = len(columns)
        while count > 1 and least_width(console, table(columns[:count])) > console.width:
            count -= 1
        part = table(columns[:count])
        console.print(part, width=max(console.width, least_width(console, part)), crop=False)
        columns = columns[count:]


def least_width(console: Console, table: Table) -> int:
    """Columns of the terminal that a table needs."""
    return table.__rich_measure__(console, console.options.update(width=10_000)).minimum


def _law_table(rows: pd.DataFrame, laws: list[str], raised: Callable[[int], str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("site", overflow="fold", min_width=20)
    table.add_column("n", justify="right", no_wrap=True)
    for name in laws:
        table.add_column(LAWS[name].heading, justify="right", no_wrap=True)
    for family, group in rows.groupby("family", sort=False):
        table.add_row(f"[bold]{family}")
        for row in group.to_dict("records"):
            table.add_row(f" {escape(row['site'])}", str(row["charges"]), *(_rich(row[law], raised) for law in laws))
    return table


def _rich(cell: Cell, raised: Callable[[int], str]) -> Text:
    return Text(cell.text + (raised(cell.note) if cell.note else ""), style="bold" if cell.bold else "")


RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"


def _raised_in(console: Console) -> Callable[[int], str]:
    """How a terminal shows the number of a footnote: 1 as ¹, as (1) where it has no such letters."""
    try:
        RAISED.encode(console.encoding)
    except UnicodeEncodeError:
        return lambda note: f"({note})"
    return lambda note: str(note).translate(str.maketrans("0123456789", RAISED))


# How causes are headed.
HEADINGS = {
    "weight_decay": "decay",
    "discretisation": "discreti-\nsation",
    "symmetry_breaking": "symmetry\nbreaking",
    "rule": "learning\nrule",
    "metric_drift": "metric's\ndrift",
    "memory_before": "memory\nbefore",
}


Column = tuple[str, Callable[[Any], str]]  # how it is headed, and what is in it for a row


def _budget_columns(budget: pd.DataFrame) -> dict[str, Column]:
    """Columns of the budget; beside a cause what of it came by memory."""
    out: dict[str, Column] = {"moved": ("moved", lambda row: number(row["moved"]))}
    for cause in shown_causes(budget):
        out[cause] = HEADINGS[cause], lambda row, cause=cause: _percent(row[f"share_{cause}"])
        memory = THROUGH_MEMORY.get(cause)
        if memory and budget[memory].fillna(0).any():
            out[memory] = "by me-\nmory", lambda row, memory=memory: _percent(row[memory] / (row["moved"] or math.nan))
    if "oscillation" in budget:
        out["oscillation"] = "oscil-\nlation", lambda row: _percent(row["oscillation"])
    return {**out, "closure": ("closure", lambda row: number(row["closure_error"], 1))}


def _budget_table(budget: pd.DataFrame, columns: list[Column], notes: Footnotes, raised: Callable[[int], str]) -> Table:
    """What moved the charges; a dash has the number of its reason."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("site", overflow="fold", min_width=20)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for family, group in budget.groupby("family", sort=False):
        table.add_row(f"[bold]{family}")
        for row in group.head(MAX_ROWS).to_dict("records"):
            cells = [said(row) for _, said in columns]
            why = raised(notes(row["reason"])) if row["reason"] else ""
            table.add_row(f" {escape(row['site'])}", *(f"{cell}{why}" if cell == DASH else cell for cell in cells))
    return table


def _percent(share: float) -> str:
    return DASH if math.isnan(share) else f"{share:+.0%}" if abs(share) >= 1 else f"{share:+.1%}"
