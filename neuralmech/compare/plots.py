"""Figures: measured charges in colour, theories dashed, and how far off each theory is.

Plots draw what `errors` computed; they never recompute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.errors import Curves
from neuralmech.laws import LAWS

# Okabe & Ito's colours, distinguishable with any colour vision; charges and laws share none.
COLOURS = ("#0072B2", "#009E73", "#56B4E9", "#CC79A7")
LAW_COLOURS = {
    "gradient_flow": "#999999",
    "weight_decay": "#F0C000",
    "first_order_flow": "#D55E00",
    "modified_flow": "#000000",
    "discrete": "#7A3B8F",
    "discrete_broken": "#E69F9F",
}
# Laws drawn over the charges; the discrete ones cannot be told from the measured curve.
DRAWN = {"gradient_flow": ":", "first_order_flow": (0, (1, 1, 4, 1)), "modified_flow": (0, (4, 2))}
FORMS = {
    "translation": r"$\langle a,\theta\rangle$",
    "scale": r"$|\theta_A|^2$",
    "rescale": r"$|\theta_{\mathrm{in}}|^2-|\theta_{\mathrm{out}}|^2$",
}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "figure.dpi": 150,
}


def family_figure(family: str, panels: Sequence[tuple[str, Curves]]) -> Figure:
    """One column per run: the charges above, each law's error below."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 4.0 * len(panels), 5.2), layout="constrained")
        axes = figure.subplots(2, len(panels), squeeze=False, sharex="col", height_ratios=(3, 2))
        for column, (title, curves) in enumerate(panels):
            _charges(axes[0, column], curves)
            _errors(axes[1, column], curves)
            axes[0, column].set_title(title, fontsize=9, parse_math=False)
            axes[1, column].set_xlabel("step")
        axes[0, 0].set_ylabel(f"{family} charge {FORMS.get(family, '')}")
        axes[1, 0].set_ylabel("relative error")
        _legend(figure, [curves for _, curves in panels])
        figure.suptitle(f"{family.capitalize()} charges: measured against theory", fontsize=11)
    return figure


def _charges(axes: Axes, curves: Curves) -> None:
    if curves.measured.shape[1] > len(curves.chosen):
        low, inner_low, inner_high, high = np.quantile(curves.measured, [0.0, 0.25, 0.75, 1.0], axis=1)
        axes.fill_between(curves.step, low, high, color=COLOURS[0], alpha=0.10, linewidth=0)
        axes.fill_between(curves.step, inner_low, inner_high, color=COLOURS[0], alpha=0.15, linewidth=0)
    for i, charge in enumerate(curves.chosen):
        axes.plot(
            curves.step,
            curves.measured[:, charge],
            color=COLOURS[i % len(COLOURS)],
            linewidth=2.2,
            alpha=0.75,
        )
    inside = _limits(curves)
    for name, dashes in DRAWN.items():
        if name in curves.theory:
            axes.plot(curves.step, curves.theory[name], color=LAW_COLOURS[name], linestyle=dashes, linewidth=1.0)
    axes.set_ylim(*inside)


def _limits(curves: Curves) -> tuple[float, float]:
    """Keep the view on what was measured: a bad theory may leave it."""
    low, high = float(curves.measured.min()), float(curves.measured.max())
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _errors(axes: Axes, curves: Curves) -> None:
    axes.locator_params(axis="x", nbins=6)
    for name, error in curves.error.items():
        visible = np.where(error > 0, error, np.nan)
        if np.isfinite(visible).any():
            axes.plot(curves.step, visible, color=LAW_COLOURS.get(name, "#666666"), linewidth=1.0)
    axes.set_yscale("log")


def _legend(figure: Figure, curves: Sequence[Curves]) -> None:
    names = list(dict.fromkeys(name for c in curves for name in c.error))
    handles = [Line2D([], [], color=COLOURS[0], linewidth=2.2, alpha=0.75, label="measured (sample of charges)")]
    if any(c.measured.shape[1] > len(c.chosen) for c in curves):
        handles.append(Line2D([], [], color=COLOURS[0], linewidth=6, alpha=0.15, label="all charges: range, quartiles"))
    handles += [
        Line2D([], [], color=LAW_COLOURS.get(n, "#666666"), linestyle=DRAWN.get(n, "-"), label=LAWS[n].label)
        for n in names
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, 2 * len(curves)), fontsize=8)


def save_figures(folder: Path, panels: Mapping[str, Sequence[tuple[str, Curves]]]) -> list[Path]:
    """Write one PNG per family; returns the files."""
    files = []
    for family, runs in panels.items():
        path = folder / f"{family}.png"
        family_figure(family, runs).savefig(path, dpi=150)
        files.append(path)
    return files
