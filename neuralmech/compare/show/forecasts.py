"""What the terminal shows of a forecast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuralmech.compare.measure.forecast import ForecastPlan
from neuralmech.compare.show.cells import DASH, Footnotes, number
from neuralmech.compare.show.printing import print_parts, say

HEADINGS = {
    "now": "now", "predicted": "predicted", "band": "band", "effective_lr": "η/Q", "measured": "measured",
    "error": "error",
}  # fmt: skip


def show_forecast(found: pd.DataFrame, plan: ForecastPlan, step: int, console: Console | None = None) -> None:
    """Print means over the charges of each site: now, predicted with its band, and measured if the run went on."""
    console, notes = console or Console(), Footnotes()
    say(console, f"From step {step}, {plan.steps} steps with η = {plan.lr:g}, λ = {plan.weight_decay:g}:", style="bold")

    def table(columns: list[str]) -> Table:
        out = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        out.add_column("site", overflow="fold", min_width=20)
        for column in ("n", *(HEADINGS[c] for c in columns)):
            out.add_column(column, justify="right", no_wrap=True)
        for family, group in found.groupby("family", sort=False):
            out.add_row(f"[bold]{family}")
            for row in group.to_dict("records"):
                cells = [_cell(row, column) for column in columns]
                if note := notes(row["reason"]):
                    cells[-1] += f" ({note})"
                out.add_row(f" {escape(row['site'])}", str(row["charges"]), *cells)
        return out

    print_parts(console, list(HEADINGS), table)
    say(
        console, "Means over the charges of a site; error: RMS of predicted − measured, over the RMS of measured, where"
    )
    say(
        console,
        "the run went on so. The band is that of the mean drive: twice its error, from its spread in the window.",
    )
    for i, reason in enumerate(notes.texts, start=1):
        say(console, f"({i}) {reason}")


def _cell(row: Mapping[Any, Any], column: str) -> str:
    if column == "band":
        return DASH if math.isnan(row["predicted"]) else f"{number(row['low'], 4)} … {number(row['high'], 4)}"
    return number(row[column], 2 if column == "error" else 4)
