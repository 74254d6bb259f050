"""What the terminal shows of a model's claimed symmetries: the charges, and whether the claims hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuralmech.compare.show.cells import number
from neuralmech.compare.show.printing import least_width, print_parts, say


def show_symmetries(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the charges by family and site, what the rule keeps, barriers, and parameters without a symmetry.

    Parameters
    ----------
    found
        ``sites``: family → site → charges; ``dependent``: matrix-valued site → its entries and independent ones;
        ``share`` of the parameters that are in a charge; ``uncovered``: parameter → reason; ``barriers`` and
        ``approximations``. Not always: ``rule``: family → whether the learning rule keeps it; ``certificate``.
    """
    console = console or Console()
    table = Table(title="Charges", title_justify="left")
    for column, justify in (("family", "left"), ("site", "left"), ("charges", "right")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for family, counts in found["sites"].items():
        for site, count in counts.items():
            table.add_row(family, escape(site), str(count))
        table.add_section()
        table.add_row(f"[bold]{family}", "[bold]total", f"[bold]{sum(counts.values())}")
        table.add_section()
    console.print(table if found["sites"] else "No charges: no symmetry was found.")
    for site, (entries, independent) in found["dependent"].items():
        say(console, f"Of the {entries} entries of {site!r} {independent} are independent laws.")
    if certificate := found.get("certificate"):
        say(console, f"{certificate[0].upper()}{certificate[1:]}.")
    say(console, f"{found['share']:.1%} of the parameters are in at least one charge.")
    for family, says in found.get("rule", {}).items():
        say(console, f"Does the learning rule keep the {family} symmetry? {says[0].upper()}{says[1:]}.")
    for barrier in found["barriers"]:
        say(console, f"Barrier (symmetries end here): {barrier}")
    for approximation in found["approximations"]:
        say(console, f"Symmetries hold up to a small number here: {approximation}")
    if found["uncovered"]:
        console.print(_uncovered(found["uncovered"]))


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
    tests = [*EXACT_TESTS, *others, "holds"]
    apart = least_width(console, _verification_table(found, tests)) > console.width
    for chosen in ([*EXACT_TESTS, "holds"], others) if apart else (tests,):  # what is said of one claim stays together
        print_parts(console, chosen, lambda columns: _verification_table(found, columns))
    say(console, "Worst relative violation of each test: the loss under finite transformations, the")
    say(
        console,
        f"gradient and the Hessian constraint, training in float64 with norms' eps removed{';' if others else '.'}",
    )
    for name in others:
        causes = ", ".join(c for c in found[f"{name}_cause"].unique() if c and c != "the claim is false")
        measured = found[f"{name}_gradient"].notna().any()
        broken = f" (* broken by {causes})" if causes and measured else f" ({causes})" if causes else ""
        say(console, f"  {name}: the gradient constraint {CONDITIONS.get(name, f'in {name}')}{broken}")


EXACT_TESTS = {"loss": "finite", "gradient": "gradient", "Hessian": "hessian"}  # headings and names of the tests


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
    if column in EXACT_TESTS:
        return number(row[f"exact_{EXACT_TESTS[column]}"], 1)
    value = row[f"{column}_gradient"]
    return number(value, 1) + ("*" if row[f"{column}_cause"] and not math.isnan(value) else "")
