"""What the terminal shows of an analysis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from neuralmech.compare.gather.labels import SYMBOLS
from neuralmech.compare.measure.accounts import CAUSES, THROUGH_MEMORY
from neuralmech.compare.show.cells import DASH, Cell, Footnotes, Sheet, law_cells, number
from neuralmech.compare.show.sheets import KINDS_MEAN, shown_causes, summary_sheet
from neuralmech.compare.show.verdicts import about, said, state
from neuralmech.laws import LAWS
from neuralmech.laws.system import AT_REST

if TYPE_CHECKING:
    from neuralmech.compare.gather.analysis import Analysis

MAX_ROWS = 24  # of a table; where there are more, families stand for their sites


def show_analysis(analysis: Analysis, console: Console | None = None) -> None:
    """Print the verdict, then of a single run each law's error and the budget, of a sweep one table; then the files."""
    console = console or Console()
    show_verdict(analysis, console)
    if not analysis.keys:
        _show_tables(analysis, console)
    for note in analysis.notes:
        say(console, f"Note: {note}")
    _show_files(analysis, console)


class Redrawn:
    """Shows verdict after verdict in the same place; below each other where that is no terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")

    def __enter__(self) -> Redrawn:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, analysis: Analysis) -> None:
        """Show another one."""
        if not self._console.is_terminal:
            show_verdict(analysis, self._console)
            return
        inner = Console(file=StringIO(), width=self._console.width, force_terminal=True, color_system="standard")
        show_verdict(analysis, inner)
        self._live.update(Text.from_ansi(inner.file.getvalue()), refresh=True)  # type: ignore[attr-defined]


def show_verdict(analysis: Analysis, console: Console | None = None) -> None:
    """Print what the runs are, and which law predicts the charges of each family, how well, and what it lacks."""
    console = console or Console()
    say(console, f"\n{about(analysis) or analysis.folder.name}", style="bold")
    say(console, state(analysis))
    if analysis.keys:
        _show_summary(summary_sheet(analysis.summary), console)
        return
    for row in analysis.verdict.to_dict("records"):
        verdict = said(row)
        kind = f" ({verdict.kind})" if verdict.kind else ""
        text = Text.assemble("\n", (f"{verdict.family}: {verdict.headline}{kind}", "bold"))
        console.print(text, highlight=False)
        for line in (f"{verdict.what}.", *verdict.lines):
            console.print(Padding(Text(line), (0, 0, 0, 2)), highlight=False)


def _show_summary(sheet: Sheet, console: Console) -> None:
    keys = list(sheet.columns[: sheet.columns.index("runs")])
    at = {name: i for i, name in enumerate(sheet.columns)}

    def table(columns: list[str]) -> Table:
        out = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for name in (*keys, *columns):
            longest = max(len(row[at[name]].text) for row in sheet.rows)
            out.add_column(escape(SYMBOLS.get(name, name)), no_wrap=True, min_width=longest)
        for row in sheet.rows:
            out.add_row(*(escape(row[at[name]].text) for name in (*keys, *columns)))
        return out

    print_parts(console, [name for name in sheet.columns if name not in keys], table)
    console.print(Text(sheet.meaning), highlight=False)


def _show_tables(analysis: Analysis, console: Console) -> None:
    raised, kinds = _raised_in(console), analysis.comparison.drop_duplicates(["family", "law"])
    marks = {(f, law): kind[0].upper() for f, law, kind in kinds[["family", "law", "kind"]].itertuples(index=False)}
    rows, footnotes = law_cells(analysis.comparison, (), analysis.verdict, digits=1)
    hidden = len(rows) > MAX_ROWS
    if hidden:
        rows = _worst_sites(rows, ())
    laws = [name for name in LAWS if name in rows]
    silent = [name for name in laws if rows[name].map(lambda cell: math.isnan(cell.value)).all()]
    say(console, "\nRelative RMS error of each law over steps and charges; 0 is perfect; the verdict's law in bold:")
    shown = [name for name in laws if name not in silent] or silent
    print_parts(console, shown, lambda chosen: _law_table(rows, chosen, marks, raised))
    told = {cell.note for name in shown for cell in rows[name]}
    for i, reason in enumerate(footnotes.texts, start=1):
        if i in told:
            say(console, f"{raised(i)} {reason}")
    for reason, labels in _why_silent(analysis.comparison, silent if shown != silent else []).items():
        say(console, f"{DASH} {', '.join(labels)}: {reason}")
    say(console, KINDS_MEAN + (" Worst site of each family; comparison.csv has all." if hidden else ""))
    say(console, "\nWhat moved the charges, as shares of how far they moved:")
    budget = by_family(analysis.budget) if len(analysis.budget) > MAX_ROWS else analysis.budget
    columns, notes = _budget_columns(budget), Footnotes()
    print_parts(
        console,
        list(columns),
        lambda parts: _budget_table(budget, [columns[part] for part in parts], notes, raised),
    )
    for i, reason in enumerate(notes.texts, start=1):
        say(console, f"{raised(i)} {reason}")
    if budget is not analysis.budget:
        say(console, "Sums over the sites of each family.")


def _why_silent(comparison: pd.DataFrame, silent: list[str]) -> dict[str, list[str]]:
    """Reason → labels of the laws that answer nowhere and have no column, by the reason for most sites."""
    out: dict[str, list[str]] = {}
    for name in silent:
        reasons = comparison.loc[comparison["law"] == name, "reason"]
        told = reasons[reasons != AT_REST] if (reasons != AT_REST).any() else reasons
        out.setdefault(str(told.mode().iat[0]), []).append(LAWS[name].label)
    return out


def _show_files(analysis: Analysis, console: Console) -> None:
    if not analysis.files:
        return
    pages = [file for file in analysis.files if file.suffix == ".html"]
    tables = " ".join(file.name for file in analysis.files if file.suffix == ".csv")
    for page in pages:
        say(console, f"\nOpen {page}")
    say(console, f"{len(analysis.files)} files in {analysis.files[0].parent}: {tables}, and figures")


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
    return worst.assign(site=[f"worst of {n} sites" if n > 1 else "its only site" for n in worst["site"]])


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


def _law_table(
    rows: pd.DataFrame, laws: list[str], marks: Mapping[tuple[str, str], str], raised: Callable[[int], str]
) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("site", overflow="fold", min_width=20)
    table.add_column("n", justify="right", no_wrap=True)
    for name in laws:
        table.add_column(LAWS[name].label.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for family, group in rows.groupby("family", sort=False):
        table.add_row(f"[bold]{family}", "", *(f"[dim]{marks.get((str(family), law), '')}" for law in laws))
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


def by_family(budget: pd.DataFrame) -> pd.DataFrame:
    """Sums over the sites of each family; apart those that have a reason for none."""
    kept = budget[budget["reason"] == ""]
    numbers = ["charges", "motion", "moved", *CAUSES, *THROUGH_MEMORY.values(), "closure"]
    out = kept.groupby("family", sort=False)[numbers].sum().reset_index()
    sites = kept.groupby("family", sort=False).size().tolist()
    for name in (*CAUSES, "closure"):
        out[f"share_{name}"] = out[name] / out["moved"]
    off = (kept["closure_error"] * kept["moved"]).groupby(kept["family"], sort=False).sum().to_numpy()
    counts = [f"{n} site{'s'[: n != 1]}" for n in sites]
    out = out.assign(closure_error=off / out["moved"], site=counts, reason="")
    left = budget[budget["reason"] != ""].groupby(["family", "reason"], sort=False)
    rest = left.agg(site=("site", "size"), charges=("charges", "sum"), moved=("moved", "sum")).reset_index()
    rest["site"] = [f"{n} site{'s'[: n != 1]}" for n in rest["site"]]
    return pd.concat([out, rest], ignore_index=True)


Column = tuple[str, Callable[[Any], str]]  # how it is headed, and what is in it for a row


def _budget_columns(budget: pd.DataFrame) -> dict[str, Column]:
    """Columns of the budget; beside a cause what of it came by memory."""
    out: dict[str, Column] = {"moved": ("moved", lambda row: number(row["moved"]))}
    for cause in shown_causes(budget):
        out[cause] = HEADINGS[cause], lambda row, cause=cause: _percent(row[f"share_{cause}"])
        memory = THROUGH_MEMORY.get(cause)
        if memory and budget[memory].fillna(0).any():
            out[memory] = "by me-\nmory", lambda row, memory=memory: _by_memory(row, memory)
    if "oscillation" in budget:
        out["oscillation"] = "oscil-\nlation", lambda row: _percent(row["oscillation"])
    return {**out, "closure": ("closure", lambda row: DASH if row["reason"] else number(row["closure_error"], 1))}


def _budget_table(budget: pd.DataFrame, columns: list[Column], notes: Footnotes, raised: Callable[[int], str]) -> Table:
    """What moved the charges; a dash has the number of its reason."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("site", overflow="fold", min_width=20)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for family, group in budget.groupby("family", sort=False):
        table.add_row(f"[bold]{family}")
        for row in group.to_dict("records"):
            cells = [said(row) for _, said in columns]
            why = raised(notes(row["reason"])) if row["reason"] else ""
            table.add_row(f" {escape(row['site'])}", *(f"{cell}{why}" if cell == DASH else cell for cell in cells))
    return table


def _by_memory(row: Mapping[Any, Any], memory: str) -> str:
    return _percent(math.nan if row["reason"] or not row["moved"] else row[memory] / row["moved"])


def _percent(share: float) -> str:
    return DASH if math.isnan(share) else f"{share:+.0%}" if abs(share) >= 1 else f"{share:+.1%}"
