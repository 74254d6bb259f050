"""What moved the charges, as stacked bars: causes that raise a charge to the right of zero, the others to the left."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from neuralmech.compare.style import FORMS, STYLE, plain

# Cause → (colour, hatch, label); the momentum buffer's shares have the colour of what it remembers.
BARS = {
    "weight_decay": ("#0072B2", "", "weight decay, at once"),
    "memory_weight_decay": ("#9CC9E8", "////", "weight decay, by momentum"),
    "discretisation": ("#D55E00", "", "discretisation $\\eta^2D$, at once"),
    "memory_discretisation": ("#F4B48A", "////", "discretisation, by momentum"),
    "symmetry_breaking": ("#009E73", "", "broken symmetry $R$, at once"),
    "memory_symmetry_breaking": ("#8FD3BC", "////", "broken symmetry, by momentum"),
    "memory_before": ("#BBBBBB", "////", "momentum from before the record"),
    "closure": ("#000000", "", "closure (rounding)"),
}
MAX_BARS = 24


def budget_figure(panels: Sequence[tuple[str, pd.DataFrame]]) -> Figure:
    """One row per family and run; one bar per site, and a mark where its charge really went.

    Parameters
    ----------
    panels
        (title from `budget_title`, rows of the budget of one family of one run).
    """
    counts = [min(len(table), MAX_BARS) for _, table in panels]
    with mpl.rc_context({**STYLE, "hatch.linewidth": 0.6, "axes.grid.axis": "x"}):
        ratios = [0.95 + 0.3 * n for n in counts]
        figure = Figure(figsize=(8.2, 1.3 + sum(ratios)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)[:, 0]
        for panel, (title, table) in zip(axes, panels, strict=True):
            _bars(panel, table)
            panel.set_title(title, fontsize=9, loc="left")
            panel.set_xlabel("change of the charge over the run, summed over the site, in its units", fontsize=7)
        shown = [bar for name, bar in BARS.items() if name != "memory_before" or any(t[name].any() for _, t in panels)]
        handles = [Patch(facecolor=c, hatch=h, edgecolor="white", label=label) for c, h, label in shown]
        mark = Line2D([], [], linestyle="", marker="D", markersize=5, color="black", markerfacecolor="white")
        mark.set_label("measured change")
        figure.legend(handles=[*handles, mark], loc="outside lower center", ncols=3, fontsize=8)
        figure.suptitle("What moved the charges", fontsize=11)
    return figure


def _bars(axes: Axes, table: pd.DataFrame) -> None:
    if len(table) > MAX_BARS:
        table = table.nlargest(MAX_BARS, "moved")
    place = np.arange(len(table))[::-1]
    up, down = np.zeros(len(table)), np.zeros(len(table))
    for name, (colour, hatch, _) in BARS.items():
        part = table[name].to_numpy()
        start = np.where(part >= 0, up, down)
        axes.barh(place, part, left=start, color=colour, hatch=hatch, height=0.62, edgecolor="white", linewidth=0.4)
        up, down = up + np.maximum(part, 0), down + np.minimum(part, 0)
    axes.plot(
        table["motion"], place, linestyle="", marker="D", markersize=5, color="black", markerfacecolor="white", zorder=3
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(place, [plain(f"{s}  ({n})") for s, n in zip(table["site"], table["charges"], strict=True)])
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.use_sticky_edges = False
    axes.margins(x=0.04)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def budget_title(family: str, label: str) -> str:
    """What stands over the bars of a family."""
    return f"{family} {FORMS.get(family, '')}" + (f"   {plain(label)}" if label else "")
