"""The terminal's table of what moved the charges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuralmech.compare.measure.accounts import CAUSES, THROUGH_MEMORY
from neuralmech.compare.show.cells import DASH, Footnotes, number
from neuralmech.compare.show.printing import MAX_ROWS, print_parts, raised_in, say
from neuralmech.compare.show.sheets import shown_causes


def show_budget(budget: pd.DataFrame, console: Console) -> None:
    """Print a budget; a long one as sums over the sites of each family."""
    raised = raised_in(console)
    is_long = len(budget) > MAX_ROWS
    whole = "all that pushed them, up or down" if is_long else "how far they moved"
    say(console, f"\nWhat moved the charges, as shares of {whole}:")
    shown = by_family(budget) if is_long else budget.assign(whole=budget["moved"])
    columns, notes = _budget_columns(shown, signed=not is_long), Footnotes()
    print_parts(
        console,
        list(columns),
        lambda parts: _budget_table(shown, [columns[part] for part in parts], notes, raised),
    )
    for i, reason in enumerate(notes.texts, start=1):
        say(console, f"{raised(i)} {reason}")
    if is_long:
        say(console, "Sums over the sites of each family; budget.csv has all, with signs.")


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
    """Sums over the sites of each family, as the verdict has them; apart sites that have a reason for none.

    Where one site's charges rise and another's fall, both were moved: pushes are summed by their size.
    """
    kept = budget[budget["reason"] == ""]
    sizes = kept[[*CAUSES, *THROUGH_MEMORY.values()]].abs()
    out = kept[["family", "charges", "moved"]].join(sizes).groupby("family", sort=False).sum().reset_index()
    out["whole"] = out[list(CAUSES)].sum(axis=1)
    sites = kept.groupby("family", sort=False).size().tolist()
    for name in CAUSES:
        out[f"share_{name}"] = out[name] / out["whole"]
    off = (kept["closure_error"] * kept["moved"]).groupby(kept["family"], sort=False).sum().to_numpy()
    counts = [f"{n} site{'s'[: n != 1]}" for n in sites]
    out = out.assign(closure_error=off / out["moved"], site=counts, reason="")
    left = budget[budget["reason"] != ""].groupby(["family", "reason"], sort=False)
    rest = left.agg(site=("site", "size"), charges=("charges", "sum"), moved=("moved", "sum")).reset_index()
    rest["site"] = [f"{n} site{'s'[: n != 1]}" for n in rest["site"]]
    return pd.concat([out, rest], ignore_index=True)


LEAST = 5e-4  # a share that rounds to more than 0.0 %
Column = tuple[str, Callable[[Any], str]]  # how it is headed, and what is in it for a row


def _budget_columns(budget: pd.DataFrame, *, signed: bool) -> dict[str, Column]:
    """Columns of the budget; beside a cause what of it came by memory."""
    out: dict[str, Column] = {"moved": ("moved", lambda row: number(row["moved"]))}
    for cause in shown_causes(budget):
        out[cause] = HEADINGS[cause], lambda row, cause=cause: _percent(row[f"share_{cause}"], signed=signed)
        memory = THROUGH_MEMORY.get(cause)
        if memory and (budget[memory].abs() >= LEAST * budget["whole"]).any():
            out[memory] = "through\nmemory", lambda row, memory=memory: _by_memory(row, memory, signed=signed)
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


def _by_memory(row: Mapping[Any, Any], memory: str, *, signed: bool) -> str:
    return _percent(math.nan if row["reason"] or not row["whole"] else row[memory] / row["whole"], signed=signed)


def _percent(share: float, *, signed: bool = True) -> str:
    if math.isnan(share):
        return DASH
    text = "0%" if abs(share) < LEAST else f"{share:+.0%}" if abs(share) >= 0.9995 else f"{share:+.1%}"
    return text if signed else text.lstrip("+")
