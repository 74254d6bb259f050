"""Figures of accounts: what moved the charges, as stacked bars, of a run by site, of a sweep by setting."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from neuralmech.compare.measure.accounts import CAUSES, THROUGH_MEMORY
from neuralmech.compare.show.drawing import NARROW, SMALLEST, head, legend_below, styled, wrapped
from neuralmech.compare.show.ends import in_short
from neuralmech.compare.show.style import FORMS, IN_METRIC, named, plain

# Cause → (colour, hatch, label); what a momentum buffer carried has the colour of its cause.
BARS = {
    "weight_decay": ("#0072B2", "", "weight decay, at once"),
    "memory_weight_decay": ("#9CC9E8", "////", "weight decay, by memory"),
    "discretisation": ("#D55E00", "", "discretisation, at once"),
    "memory_discretisation": ("#F4B48A", "////", "discretisation, by memory"),
    "symmetry_breaking": ("#009E73", "", "broken symmetry $R$, at once"),
    "memory_symmetry_breaking": ("#8FD3BC", "////", "broken symmetry, by memory"),
    "rule": ("#CC79A7", "", "work of the learning rule"),
    "metric_drift": ("#E69F00", "", "drift of the metric"),
    "memory_before": ("#BBBBBB", "////", "memory from before the record"),
    "closure": ("#000000", "", "closure (rounding)"),
}
RARE = ("rule", "metric_drift", *(name for name in BARS if name.startswith("memory_")))  # in the key if there are any
MAX_BARS = 24
NET: dict[str, Any] = {
    "linestyle": "", "marker": "D", "markersize": 5, "color": "black", "markerfacecolor": "white", "zorder": 3,
}  # fmt: skip


def budget_figure(panels: Sequence[tuple[str, pd.DataFrame]], *, narrow: bool = False) -> Figure:
    """One row per family and run; one bar per site, and a mark where its charge really went.

    Causes that raise a charge are stacked to the right of zero, the others to the left.

    Parameters
    ----------
    panels
        (title from `budget_title`, rows of the budget of one family of one run).
    narrow
        Whether it is for a phone: sites' names stand over their bars.
    """
    counts = [min(len(table), MAX_BARS) for _, table in panels]
    with styled(narrow=narrow, **{"hatch.linewidth": 0.6, "axes.grid.axis": "x"}):
        ratios = [0.95 + (0.42 if narrow else 0.3) * n for n in counts]
        figure = Figure(figsize=(NARROW if narrow else 8.2, 1.3 + sum(ratios)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)[:, 0]
        for panel, (title, table) in zip(axes, panels, strict=True):
            _bars(panel, table, narrow=narrow)
            panel.set_title(title, fontsize=9, loc="left")
            units = "in Adam's metric, in its units" if IN_METRIC in title else "in its units"
            label = f"change of the charge over the run, summed over the site, {units}"
            panel.set_xlabel(wrapped(label, narrow=narrow), fontsize=SMALLEST)
        shown = [b for name, b in BARS.items() if name not in RARE or any(t[name].fillna(0).any() for _, t in panels)]
        handles = [Patch(facecolor=c, hatch=h, edgecolor="white", label=label) for c, h, label in shown]
        mark = Line2D([], [], **NET, label="measured change")
        legend_below(figure, [*handles, mark], 3, narrow=narrow)
        head(figure, "What moved the charges", narrow=narrow)
    return figure


def _bars(axes: Axes, table: pd.DataFrame, *, narrow: bool) -> None:
    if len(table) > MAX_BARS:
        table = table.nlargest(MAX_BARS, "moved")
    place = np.arange(len(table))[::-1]
    up, down = np.zeros(len(table)), np.zeros(len(table))
    for name, (colour, hatch, _) in BARS.items():
        part = table[name].fillna(0).to_numpy() - (
            table[THROUGH_MEMORY[name]].fillna(0) if name in THROUGH_MEMORY else 0
        )
        start = np.where(part >= 0, up, down)
        height = 0.42 if narrow else 0.62
        axes.barh(place, part, left=start, color=colour, hatch=hatch, height=height, edgecolor="white", linewidth=0.4)
        up, down = up + np.maximum(part, 0), down + np.minimum(part, 0)
    axes.plot(table["motion"], place, **NET)
    axes.axvline(0, color="black", linewidth=0.8)
    names = [f"{s}  ({n})" for s, n in zip(in_short(list(table["site"]), 44), table["charges"], strict=True)]
    axes.set_ylim(-0.6, len(table) - 0.4)
    _name_bars(axes, place, names, narrow=narrow)
    axes.use_sticky_edges = False
    axes.margins(x=0.04)
    axes.locator_params(axis="x", nbins=4 if narrow else 7)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _name_bars(axes: Axes, place: np.ndarray, names: Sequence[str], *, narrow: bool) -> None:
    """What bars are of: beside them or, where there is no room, over them."""
    if not narrow:
        axes.set_yticks(place, names)
        return
    axes.set_yticks([])
    axes.set_ylim(-0.6, len(place) - 0.2)
    for at, name in zip(place, names, strict=True):
        axes.text(0, at + 0.25, name, transform=axes.get_yaxis_transform(), fontsize=SMALLEST, va="bottom")


def budget_title(family: str) -> str:
    """What stands over the bars of a family."""
    return f"{named(family)} {FORMS.get(family, '')}"


def budget_of_runs_figure(pushed: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """One panel per family, one bar per setting of a sweep, all on one scale; `pushed` is from `pushes`."""
    families = list(dict.fromkeys(pushed["family"]))
    tables = [pushed[pushed["family"] == family] for family in families]
    tables = [t.iloc[np.unique(np.linspace(0, len(t) - 1, min(MAX_BARS, len(t))).astype(int))] for t in tables]
    with styled(narrow=narrow, **{"axes.grid.axis": "x"}):
        lines = 1 + max(len(label) > 48 for label in pushed["label"])
        heights = [0.7 + (0.4 if narrow else 0.24 * lines) * len(table) for table in tables]
        figure = Figure(figsize=(NARROW if narrow else 7.4, 1.5 + sum(heights)), layout="constrained")
        axes = figure.subplots(len(families), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for panel, family, table in zip(axes, families, tables, strict=True):
            place = np.arange(len(table))[::-1]
            for way in ("up", "down"):
                start = np.zeros(len(table))
                for cause in CAUSES:
                    part = table[f"{cause} {way}"].to_numpy()
                    look = {
                        "color": BARS[cause][0],
                        "height": 0.42 if narrow else 0.66,
                        "edgecolor": "white",
                        "lw": 0.4,
                    }
                    panel.barh(place, part, left=start, **look)
                    start = start + part
            panel.plot(table["net"], place, **NET)
            panel.axvline(0, color="black", linewidth=0.8)
            names = [plain(fill(label, 48, break_long_words=False)) for label in table["label"]]
            _name_bars(panel, place, names, narrow=narrow)
            panel.set_title(budget_title(family), fontsize=9, loc="left")
            panel.set_xlim(-1.04, 1.04)
        axes[-1].set_xlabel(wrapped("share of all that pushed the charges: down (left), up (right)", narrow=narrow))
        there = [c for c in CAUSES if c not in RARE or pushed[[f"{c} up", f"{c} down"]].abs().max().max() > 0]
        words = {
            "weight_decay": "weight decay",
            "discretisation": "discretisation",
            "symmetry_breaking": "broken symmetry",
        }
        handles: list[Any] = [Patch(facecolor=BARS[c][0], label=words.get(c, BARS[c][2])) for c in there]
        handles.append(Line2D([], [], **NET, label="net change"))
        legend_below(figure, handles, 3, narrow=narrow)
        head(figure, "What moved the charges", narrow=narrow)
    return figure
