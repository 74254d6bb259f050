"""Entries of tables, free of any format: numbers as text, the law of the verdict, footnotes, names in short."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

DASH = "–"


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
    few: tuple[str, ...] = ()  # columns that matter most: those that a phone shows; none: the first four


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


def shortened(text: str, width: int) -> str:
    """A name in so many letters, its middle left out.

    Examples
    --------
    >>> shortened("features.0 -> classifier", 15)
    'feature…ssifier'
    """
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def wide(table: pd.DataFrame, keys: Sequence[str], measure: str = "error") -> pd.DataFrame:
    """One row per run, family and site, one column per law."""
    index = [*keys, "family", "site", "charges"]
    laws = list(dict.fromkeys(table["law"]))
    rows = table.set_index([*index, "law"])[measure].unstack("law", sort=False)
    return rows[laws].reset_index()


def chosen_laws(verdict: pd.DataFrame, keys: Sequence[str]) -> set[tuple]:
    """(keys…, family, law) of the law of each verdict, which tables have in bold."""
    if verdict.empty:
        return set()
    return set(verdict.loc[verdict["law"] != "", [*keys, "family", "law"]].itertuples(index=False, name=None))


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
    table: pd.DataFrame, keys: Sequence[str], verdict: pd.DataFrame, measure: str = "error", digits: int = 2
) -> tuple[pd.DataFrame, Footnotes]:
    """As `wide`, with a `Cell` for each law: that of the verdict in bold, a footnote where a law does not hold."""
    values, reasons = wide(table, keys, measure), wide(table, keys, "reason")
    best, notes = chosen_laws(verdict, keys), Footnotes()
    laws = list(dict.fromkeys(table["law"]))
    owners = list(values[[*keys, "family"]].itertuples(index=False, name=None))
    for law in laws:
        cells = [
            Cell(number(v, digits), v, (*owner, law) in best and not math.isnan(v), notes(reason))
            for owner, v, reason in zip(owners, values[law], reasons[law], strict=True)
        ]
        values[law] = pd.Series(cells, index=values.index, dtype=object)
    return values, notes


def cell(value: object, digits: int = 2, note: int = 0) -> Cell:
    """An entry of a table's value, with so many digits and the number of its footnote."""
    if isinstance(value, Cell):
        return value
    plain = value.item() if isinstance(value, np.generic) else value
    return Cell(number(plain, digits), plain, note=note)
