"""What the terminal shows of an analysis."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from neuralmech.compare.gather.labels import SYMBOLS
from neuralmech.compare.show.cells import Sheet
from neuralmech.compare.show.printing import print_parts, say
from neuralmech.compare.show.sheets import summary_sheet
from neuralmech.compare.show.terminal_budget import show_budget
from neuralmech.compare.show.terminal_laws import show_laws
from neuralmech.compare.show.verdicts import about, moved_in, said, state

if TYPE_CHECKING:
    from neuralmech.compare.gather.analysis import Analysis


def show_analysis(analysis: Analysis, console: Console | None = None) -> None:
    """Print the verdict, then of a single run each law's error and the budget, of a sweep one table; then the files."""
    console = console or Console()
    show_verdict(analysis, console)
    if not analysis.keys:
        show_laws(analysis, console)
        show_budget(analysis.budget, console)
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
        for line in moved_in(analysis):
            say(console, line)
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


def _show_files(analysis: Analysis, console: Console) -> None:
    if not analysis.files:
        return
    pages = [file for file in analysis.files if file.suffix == ".html"]
    tables = " ".join(file.name for file in analysis.files if file.suffix == ".csv")
    for page in pages:
        say(console, f"\nOpen {page}")
    figures = ", and figures" if any(file.suffix in (".png", ".pdf", ".svg") for file in analysis.files) else ""
    say(console, f"{len(analysis.files)} files in {analysis.files[0].parent}: {tables}{figures}")
