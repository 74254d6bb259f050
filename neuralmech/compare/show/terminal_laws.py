"""The terminal's table of laws: how far each is off, site by site, or of many sites the worst of each family."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from neuralmech.compare.measure.sums import NORM
from neuralmech.compare.show.cells import DASH, Cell, law_cells
from neuralmech.compare.show.printing import MAX_ROWS, print_parts, raised_in, say
from neuralmech.compare.show.sheets import KINDS_MEAN
from neuralmech.laws import LAWS
from neuralmech.laws.system import AT_REST

if TYPE_CHECKING:
    from neuralmech.compare.gather.analysis import Analysis


def show_laws(analysis: Analysis, console: Console) -> None:
    """Print each law's error, site by site."""
    raised, kinds = raised_in(console), analysis.comparison.drop_duplicates(["family", "law"])
    marks = {(f, law): kind[0].upper() for f, law, kind in kinds[["family", "law", "kind"]].itertuples(index=False)}
    rows, footnotes = law_cells(analysis.comparison, (), analysis.verdict, digits=1)
    hidden = len(rows) > MAX_ROWS
    if hidden:
        rows = _worst_sites(rows, ())
    laws = [name for name in LAWS if name in rows]
    silent = [name for name in laws if rows[name].map(lambda cell: math.isnan(cell.value)).all()]
    say(console, "\nRelative RMS error of each law over steps and charges; 0 is perfect; the verdict's law in bold:")
    shown = [name for name in laws if name not in silent] or silent
    told = sorted({cell.note for name in shown for cell in rows[name]} - {0})  # those of columns that are shown

    def renumbered(note: int) -> str:
        return raised(told.index(note) + 1)

    print_parts(console, shown, lambda chosen: _law_table(rows, chosen, marks, renumbered))
    for i, note in enumerate(told, start=1):
        say(console, f"{raised(i)} {footnotes.texts[note - 1]}")
    for reason, labels in _why_silent(analysis.comparison, silent if shown != silent else []).items():
        say(console, f"{DASH} {', '.join(labels)}: {reason}")
    say(console, KINDS_MEAN + (" Worst site of each family; comparison.csv has all." if hidden else ""))


def _why_silent(comparison: pd.DataFrame, silent: list[str]) -> dict[str, list[str]]:
    """Reason → labels of the laws that answer nowhere and have no column, by the reason for most sites."""
    out: dict[str, list[str]] = {}
    for name in silent:
        reasons = comparison.loc[comparison["law"] == name, "reason"]
        told = reasons[reasons != AT_REST] if (reasons != AT_REST).any() else reasons
        out.setdefault(str(told.mode().iat[0]), []).append(LAWS[name].label)
    return out


def _worst_sites(rows: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    """One row per family: its worst site's error for each law; sites of which no law says anything do not count."""
    by, laws = [*keys, "family"], [c for c in rows.columns if c in LAWS]
    is_own = ~rows["site"].str.endswith(NORM)  # a matrix's Frobenius norm has a row, and is no charge more
    rows = rows.assign(sites=is_own.astype(int), charges=rows["charges"].where(is_own, 0))
    answered = rows[laws].map(lambda cell: not math.isnan(cell.value)).any(axis=1)
    some = answered.groupby([rows[k] for k in by], sort=False, dropna=False).transform("any")
    grouped = rows[answered | ~some].groupby(by, sort=False, dropna=False)
    worst = grouped.agg({"sites": "sum", "charges": "sum", **dict.fromkeys(laws, _worst)}).reset_index()
    return worst.assign(site=[f"worst of {n} sites" if n > 1 else "its only site" for n in worst["sites"]])


def _worst(cells: pd.Series) -> Cell:
    """The cell with the largest error; a law that does not hold at one site shows its dash."""
    values = cells.map(lambda cell: cell.value).astype(float)
    return cells[values.idxmax() if values.notna().all() else values.isna().idxmax()]


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
