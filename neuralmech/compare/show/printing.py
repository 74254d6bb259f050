"""How anything is printed: text as it is, tables in parts as wide as the terminal, numbers of footnotes."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

MAX_ROWS = 24  # of a table; where there are more, families stand for their sites


def say(console: Console, text: str, **style: str) -> None:
    """Print text as it is: no markup, no wrapping of paths."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, **style)  # type: ignore[arg-type]


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


RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"


def raised_in(console: Console) -> Callable[[int], str]:
    """How a terminal shows the number of a footnote: 1 as ¹, as (1) where it has no such letters."""
    try:
        RAISED.encode(console.encoding)
    except UnicodeEncodeError:
        return lambda note: f"({note})"
    return lambda note: str(note).translate(str.maketrans("0123456789", RAISED))
