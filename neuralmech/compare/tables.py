"""The comparison as files: CSV for programs, Markdown for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

MEASURES = ("error", "unexplained", "max_error", "final_error")


def wide(table: pd.DataFrame, keys: Sequence[str], measure: str = "error") -> pd.DataFrame:
    """One row per run, family and site, one column per law."""
    index = [*keys, "family", "site", "charges"]
    laws = list(dict.fromkeys(table["law"]))
    rows = table.set_index([*index, "law"])[measure].unstack("law", sort=False)
    return rows[laws].reset_index()


def number(value: object, digits: int = 2) -> str:
    """Two significant digits, or `digits`; a dash where there is nothing to compare with.

    Examples
    --------
    >>> [number(v) for v in (0.0123, 3.2e-7, 1, float("nan"), "batch")]
    ['0.012', '3.2e-07', '1', '–', 'batch']
    """
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        plain = value == 0 or 1e-2 <= abs(value) < 1e3
        return f"{value:.{digits}g}" if plain else f"{value:.{digits - 1}e}"
    return str(value)


def markdown(table: pd.DataFrame, keys: Sequence[str], title: str, notes: Sequence[str]) -> str:
    """Errors and unexplained shares as Markdown tables."""
    parts = [f"# {title}"]
    for measure, meaning in (
        ("error", "RMS over steps and charges of (theory − measured), relative to the RMS of measured"),
        (
            "unexplained",
            "Σ(theory − measured)² / Σ(measured − measured at the start)²: 0 is perfect, 1 is no better than conserved",
        ),
    ):
        parts.append(f"## {measure}\n\n{meaning}.\n\n{_grid(wide(table, keys, measure))}")
    if notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {_text(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _text(cell: str) -> str:
    """Markdown may contain HTML; a name may not."""
    return cell.replace("&", "&amp;").replace("<", "&lt;")


def _grid(frame: pd.DataFrame) -> str:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(_text(number(c)).replace("|", r"\|") for c in cells) + " |"

    head = [line(list(frame.columns)), "|" + " --- |" * len(frame.columns)]
    return "\n".join([*head, *(line(list(row)) for row in frame.itertuples(index=False))])
