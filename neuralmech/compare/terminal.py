"""What the terminal shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
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

MAX_ROWS = 60


def show_analysis(analysis: Analysis, console: Console | None = None) -> None:
    """Print the comparison: per run a row per site and a column per law; then the files."""
    console = console or Console()
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
            f"{run.steps} steps, {run.status}; held out: loss {run.loss:.4f}, accuracy {run.accuracy:.1%}",
        )
        console.print(_law_table(group.drop(columns=list(analysis.keys))))
    _say(console, "Relative RMS error of each law over steps and charges; 0 is perfect; each family's best in bold.")
    for i, reason in enumerate(footnotes.texts, start=1):
        _say(console, f"{_raised(i)} {reason}")
    if hidden:
        _say(console, "Worst site of each family; every site is in comparison.csv.")
    if "discrete_broken" in rows:
        _say(console, "discrete + R takes the measured breaking of the symmetry, the residual R, as an input.")
    if not analysis.keys:
        _say(console, "\nWhat moved the charges, as shares of how far they moved:")
        said = len(footnotes.texts)
        console.print(_budget_table(analysis.budget, footnotes))
        for i, reason in enumerate(footnotes.texts[said:], start=said + 1):
            _say(console, f"{_raised(i)} {reason}")
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


def _law_table(rows: pd.DataFrame) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("site", overflow="fold", min_width=20)
    table.add_column("n", justify="right")
    laws = [c for c in rows.columns if c in LAWS]
    for name in laws:
        table.add_column(LAWS[name].heading, justify="right", no_wrap=True)
    for family, group in rows.groupby("family", sort=False):
        table.add_row(f"[bold]{family}")
        for row in group.to_dict("records"):
            table.add_row(f" {escape(row['site'])}", str(row["charges"]), *(_rich(row[law]) for law in laws))
    return table


def _rich(cell: Cell) -> Text:
    return Text(cell.text + (_raised(cell.note) if cell.note else ""), style="bold" if cell.bold else "")


def _raised(number_: int) -> str:
    """1 as ¹, which is how a footnote looks where nothing can be raised."""
    return str(number_).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _budget_table(budget: pd.DataFrame, notes: Footnotes) -> Table:
    """What moved the charges; a dash has the number of its reason."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("site", overflow="fold", min_width=20)
    for heading in ("moved", "decay", "discreti-\nsation", "symmetry\nbreaking", "momentum\nmemory", "closure"):
        table.add_column(heading, justify="right", no_wrap=True)
    for family, group in budget.groupby("family", sort=False):
        table.add_row(f"[bold]{family}")
        for row in group.head(MAX_ROWS).to_dict("records"):
            cells = [number(row["moved"]), *(_percent(row[f"share_{name}"]) for name in PARTS)]
            cells.append(number(row["closure_error"], 1))
            why = _raised(notes(row["reason"])) if row["reason"] else ""
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
    table = _verification_table(found, others, with_exact=True)
    if table.__rich_measure__(console, console.options.update(width=10_000)).minimum <= console.width:
        console.print(table)
    else:  # two tables rather than columns that are cut off
        console.print(_verification_table(found, [], with_exact=True))
        console.print(_verification_table(found, others, with_exact=False))
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


def _verification_table(found: pd.DataFrame, others: list[str], *, with_exact: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("site", overflow="fold", min_width=18)
    exact = ("loss", "gradient", "Hessian") if with_exact else ()
    for column in ("n", *exact, *others, *(["holds"] if with_exact else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for family, group in found.groupby("family", sort=False) if len(found) else ():
        table.add_row(f"[bold]{family}")
        for row in group.to_dict("records"):
            cells = [number(row[f"exact_{test}"], 1) for test in ("finite", "gradient", "hessian") if with_exact]
            for value, cause in ((row[f"{name}_gradient"], row[f"{name}_cause"]) for name in others):
                cells.append(number(value, 1) + ("*" if cause and not math.isnan(value) else ""))
            cells += ["yes" if row["holds"] else "[bold red]NO[/]"] if with_exact else []
            table.add_row(f" {escape(row['site'])}", str(row["charges"]), *cells)
    return table
