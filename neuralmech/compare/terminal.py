"""What the terminal shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from neuralmech.compare.analysis import Analysis
from neuralmech.compare.budget import PARTS
from neuralmech.compare.tables import DASH, Cell, Footnotes, law_cells, number
from neuralmech.laws import LAWS
from neuralmech.record.schema import held_out

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
        _say(console, f"\n{labels or analysis.folder.name}", style="bold")
        _say(
            console,
            f"{run.steps} steps, {run.status}; {held_out(run.loss, run.accuracy)}",
        )
        _print_parts(
            console, [n for n in LAWS if n in group], lambda laws, group=group: _law_table(group, laws, raised)
        )
    _say(console, "Relative RMS error of each law over steps and charges; 0 is perfect; each family's best in bold.")
    for i, reason in enumerate(footnotes.texts, start=1):
        _say(console, f"{raised(i)} {reason}")
    if hidden:
        _say(console, "Worst site of each family; every site is in comparison.csv.")
    if "discrete_broken" in rows:
        _say(console, "discrete + R takes the measured breaking of the symmetry, the residual R, as an input.")
    if not analysis.keys:
        _say(console, "\nWhat moved the charges, as shares of how far they moved:")
        said = len(footnotes.texts)
        _print_parts(console, list(BUDGET), lambda parts: _budget_table(analysis.budget, parts, footnotes, raised))
        for i, reason in enumerate(footnotes.texts[said:], start=said + 1):
            _say(console, f"{raised(i)} {reason}")
    for note in analysis.notes:
        _say(console, f"Note: {note}")
    _say(console, "\nWritten:")
    for file in analysis.files:
        _say(console, f"  {file}")


def _say(console: Console, text: str, **style: str) -> None:
    """Print text as it is: no markup, no wrapping of paths."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, **style)  # type: ignore[arg-type]


def _worst_sites(rows: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    """One row per family: its worst site's error for each law."""
    laws = [c for c in rows.columns if c in LAWS]
    grouped = rows.groupby([*keys, "family"], sort=False, dropna=False)
    worst = grouped.agg({"site": "size", "charges": "sum", **dict.fromkeys(laws, _worst)}).reset_index()
    return worst.assign(site=[f"worst of {n} sites" for n in worst["site"]])


def _worst(cells: pd.Series) -> Cell:
    """The cell with the largest error; a law that does not hold at one site shows its dash."""
    values = cells.map(lambda cell: cell.value).astype(float)
    return cells[values.idxmax() if values.notna().all() else values.isna().idxmax()]


def _print_parts(console: Console, columns: list[str], table: Callable[[list[str]], Table]) -> None:
    """Print a table, below each other in parts where it is wider than the terminal, which would cut columns off."""
    while columns:
        count = len(columns)
        while count > 1 and _least_width(console, table(columns[:count])) > console.width:
            count -= 1
        part = table(columns[:count])
        console.print(part, width=max(console.width, _least_width(console, part)), crop=False)
        columns = columns[count:]


def _least_width(console: Console, table: Table) -> int:
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


# Columns of the budget: how they are headed, and what is in them.
BUDGET: dict[str, tuple[str, Callable[[Any], str]]] = {
    "moved": ("moved", lambda row: number(row["moved"])),
    **{
        part: (heading, lambda row, part=part: _percent(row[f"share_{part}"]))
        for part, heading in zip(
            PARTS, ("decay", "discreti-\nsation", "symmetry\nbreaking", "momentum\nmemory"), strict=True
        )
    },
    "closure": ("closure", lambda row: number(row["closure_error"], 1)),
}


def _budget_table(budget: pd.DataFrame, parts: list[str], notes: Footnotes, raised: Callable[[int], str]) -> Table:
    """What moved the charges; a dash has the number of its reason."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("site", overflow="fold", min_width=20)
    for part in parts:
        table.add_column(BUDGET[part][0], justify="right", no_wrap=True)
    for family, group in budget.groupby("family", sort=False):
        table.add_row(f"[bold]{family}")
        for row in group.head(MAX_ROWS).to_dict("records"):
            cells = [BUDGET[part][1](row) for part in parts]
            why = raised(notes(row["reason"])) if row["reason"] else ""
            table.add_row(f" {escape(row['site'])}", *(f"{cell}{why}" if cell == DASH else cell for cell in cells))
    return table


def _percent(share: float) -> str:
    return DASH if math.isnan(share) else f"{share:+.0%}" if abs(share) >= 1 else f"{share:+.1%}"


def show_symmetries(
    sites: Mapping[str, Mapping[str, int]],
    uncovered: Mapping[str, str],
    barriers: list[str],
    share: float,
    approximations: list[str] | None = None,
    console: Console | None = None,
) -> None:
    """Print the charges by family and site, totals, barriers, what holds nearly, and parameters without a symmetry."""
    console = console or Console()
    table = Table(title="Charges", title_justify="left")
    for column, justify in (("family", "left"), ("site", "left"), ("charges", "right")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for family, counts in sites.items():
        for site, count in counts.items():
            table.add_row(family, escape(site), str(count))
        table.add_section()
        table.add_row(f"[bold]{family}", "[bold]total", f"[bold]{sum(counts.values())}")
        table.add_section()
    console.print(table if sites else "No charges: no symmetry was found.")
    _say(console, f"{share:.1%} of the parameters are in at least one charge.")
    for barrier in barriers:
        _say(console, f"Barrier (symmetries end here): {barrier}")
    for approximation in approximations or []:
        _say(console, f"Symmetries hold up to a small number here: {approximation}")
    if uncovered:
        console.print(_uncovered(uncovered))


def _uncovered(reasons: Mapping[str, Any]) -> Table:
    table = Table(title="Parameters without a symmetry", title_justify="left")
    table.add_column("parameter", overflow="fold")
    table.add_column("reason", overflow="fold")
    for name, reason in reasons.items():
        table.add_row(escape(name), escape(str(reason)))
    return table


CONDITIONS = {"float64": "with the eps", "own": "in the model's own precision", "eval": "in evaluation mode"}


def show_verification(found: pd.DataFrame, console: Console | None = None) -> None:
    """Print the worst violations per site: of each test in exact arithmetic, of the gradient's also elsewhere."""
    console = console or Console()
    others = [c.removesuffix("_gradient") for c in found if c.endswith("_gradient") and c != "exact_gradient"]
    tests = [*EXACT, *others, "holds"]
    apart = _least_width(console, _verification_table(found, tests)) > console.width
    for chosen in ([*EXACT, "holds"], others) if apart else (tests,):  # what is said of one claim stays together
        _print_parts(console, chosen, lambda columns: _verification_table(found, columns))
    _say(console, "Worst relative violation of each test: the loss under finite transformations, the")
    _say(
        console,
        f"gradient and the Hessian constraint, training in float64 with norms' eps removed{';' if others else '.'}",
    )
    for name in others:
        causes = ", ".join(c for c in found[f"{name}_cause"].unique() if c and c != "the claim is false")
        measured = found[f"{name}_gradient"].notna().any()
        broken = f" (* broken by {causes})" if causes and measured else f" ({causes})" if causes else ""
        _say(console, f"  {name}: the gradient constraint {CONDITIONS.get(name, f'in {name}')}{broken}")


EXACT = {"loss": "finite", "gradient": "gradient", "Hessian": "hessian"}  # headings and names of the tests


def _verification_table(found: pd.DataFrame, columns: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("site", overflow="fold", min_width=18)
    for column in ("n", *columns):
        table.add_column(column, justify="right", no_wrap=True)
    for family, group in found.groupby("family", sort=False) if len(found) else ():
        table.add_row(f"[bold]{family}")
        for row in group.to_dict("records"):
            cells = [_verified(row, column) for column in columns]
            table.add_row(f" {escape(row['site'])}", str(row["charges"]), *cells)
    return table


def _verified(row: Mapping[str, Any], column: str) -> str:
    if column == "holds":
        return "yes" if row["holds"] else "[bold red]NO[/]"
    if column in EXACT:
        return number(row[f"exact_{EXACT[column]}"], 1)
    value = row[f"{column}_gradient"]
    return number(value, 1) + ("*" if row[f"{column}_cause"] and not math.isnan(value) else "")
