"""Figures: measured charges in colour, theories dashed, and how far off each theory is.

Plots draw what `errors` computed; they never recompute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from neuralmech.compare.measure.curves import Curves
from neuralmech.compare.measure.views import METRIC
from neuralmech.compare.show.cells import shortened
from neuralmech.compare.show.style import COLOURS, FLOOR, FORMS, MEASURED, STYLE, law_line, named, plain
from neuralmech.laws import LAWS

# Laws drawn over the charges; the discrete ones cannot be told from the measured curve.
DRAWN = ("gradient_flow", "first_order_flow", "modified_flow", "constant_metric", "moving_metric")
COLUMNS = 3  # panels beside each other
NAME_GAP, NAME_LENGTH = 0.075, 30  # between names, of the axis; letters of one
DASHES: Any = (0, (4, 2))
MANY = (*COLOURS, "#D55E00", "#E69F00", "#000000")  # no laws here, whose colours these are elsewhere
FAINT: dict[str, Any] = {"linewidth": 3.2, "alpha": 0.4}  # under the theory in the same colour
BANDS = ((0.0, 1.0, 0.08), (0.1, 0.9, 0.12), (0.25, 0.75, 0.18))  # quantiles of the charges and opacity


def family_figure(family: str, panels: Sequence[tuple[str, Curves]]) -> Figure:
    """For each run the charges, measured and in theory, and below them each law's error, if any law holds."""
    columns = min(COLUMNS, len(panels))
    bands = -(-len(panels) // columns)
    lawful = any(curves.error for _, curves in panels)
    heights = (3, 2) if lawful else (3,)
    with mpl.rc_context(STYLE):
        names = 1.8 if len(panels) == 1 else 0.0  # room for the sites' names beside their curves
        figure = Figure(figsize=(1.4 + 4.2 * columns + names, 0.9 + 0.92 * sum(heights) * bands), layout="constrained")
        axes = figure.subplots(len(heights) * bands, columns, squeeze=False, height_ratios=heights * bands)
        for place in range(bands * columns):
            row, column = divmod(place, columns)
            upper, *lower = axes[len(heights) * row : len(heights) * (row + 1), column]
            if place >= len(panels):
                for panel in (upper, *lower):
                    panel.set_axis_off()
                continue
            title, curves = panels[place]
            _charges(upper, curves)
            upper.set_title(plain(title), fontsize=9)
            for panel in lower:
                panel.sharex(upper)
                upper.tick_params(labelbottom=False)
                _errors(panel, curves)
            (upper, *lower)[-1].set_xlabel("step $k$")
            if column == 0:
                for panel, label in zip((upper, *lower), (_charge(family), "relative error"), strict=False):
                    panel.set_ylabel(label)
        if len(panels) == 1:
            _names(axes[0][0], panels[0][1])
        _legend(figure, [curves for _, curves in panels])
        count = panels[0][1].measured.shape[1]
        noun = f"{count} {named(family)}" if len(panels) == 1 else named(family).capitalize()
        figure.suptitle(f"{noun}: measured" + (" against theory" if lawful else "; no law holds"), fontsize=11)
    return figure


def _charge(family: str) -> str:
    return f"{named(family, 'charge')}{chr(10) if family.endswith(METRIC) else ' '}{FORMS.get(family, '')}"


def _charges(axes: Axes, curves: Curves) -> None:
    axes.locator_params(axis="x", nbins=6)
    if curves.measured.shape[1] > len(curves.chosen):
        for low, high, opacity in BANDS:
            edges = np.quantile(curves.measured, [low, high], axis=1)
            axes.fill_between(curves.step, *edges, color=COLOURS[0], alpha=opacity, linewidth=0)
    for i, charge in enumerate(curves.chosen):
        axes.plot(curves.step, curves.measured[:, charge], color=COLOURS[i % len(COLOURS)], **MEASURED)
    for name in DRAWN:
        if name in curves.theory and not np.isinf(curves.theory[name]).any():
            axes.plot(curves.step, curves.theory[name], **law_line(name))
    axes.set_ylim(*_limits(curves.measured))  # a bad theory may leave the view


def _errors(axes: Axes, curves: Curves) -> None:
    for name, error in curves.error.items():
        visible = np.where(error > FLOOR, error, np.nan)
        if np.isfinite(visible).any():
            axes.plot(curves.step, visible, **law_line(name))
    axes.set_yscale("log")


def _legend(figure: Figure, curves: Sequence[Curves]) -> None:
    names = list(dict.fromkeys(name for c in curves for name in c.error))
    drawn = min(len(COLOURS), max(len(c.chosen) for c in curves))
    measured = tuple(Line2D([], [], color=colour, **MEASURED) for colour in COLOURS[:drawn])
    handles: list[Any] = [measured if len(measured) > 1 else next(iter(measured))]
    labels = ["measured: some charges"]
    if any(c.measured.shape[1] > len(c.chosen) for c in curves):
        handles.append(Patch(color=COLOURS[0], alpha=0.3, linewidth=0))
        labels.append("measured: all, 10–90 %, 25–75 %")
    lines = [Line2D([], [], **law_line(n), label=LAWS[n].label if n in LAWS else n) for n in names]
    figure.legend(
        handles=[*handles, *lines],
        labels=[*labels, *(line.get_label() for line in lines)],
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.1)},
        loc="outside lower center",
        ncols=2 if len(curves) == 1 else 4,
        fontsize=8,
        handlelength=3.5,
    )


def _names(axes: Axes, curves: Curves) -> None:
    """Sites' names at the right ends of their curves, in their colours, moved apart where curves end side by side."""
    low, high = axes.get_ylim()
    last, end = curves.measured[-1, curves.chosen], curves.step[-1]
    height = (last - low) / (high - low)
    order = np.argsort(height)
    gap = min(NAME_GAP, 1.0 / max(1, len(order) - 1))
    places = height[order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places[-1] = min(places[-1], 1.0)
    for i in range(len(places) - 2, -1, -1):
        places[i] = min(places[i], places[i + 1] - gap)
    for i, place in zip(order, places, strict=True):
        name = plain(shortened(curves.names[i], NAME_LENGTH)) if curves.names else ""
        axes.annotate(
            name,
            (end, last[i]),
            (1.02, place),
            xycoords="data",
            textcoords="axes fraction",
            color=COLOURS[i % len(COLOURS)],
            fontsize=7,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
                "color": COLOURS[i % len(COLOURS)],
                "alpha": 0.6,
            },
        )


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Range of some values with a margin."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def parameters_figure(families: Sequence[tuple[str, Curves]]) -> Figure:
    """Upper row: parameters of one run, family by family; lower row: their charges, in the same colours."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(6.4, 1.2 + 3.4 * len(families)), 6.2), layout="constrained")
        axes = figure.subplots(3, len(families), squeeze=False, height_ratios=(4, 4, 1.2))
        for (family, curves), upper, lower, names in zip(families, *axes, strict=True):
            lower.sharex(upper)
            upper.tick_params(labelbottom=False)
            for i, (name, charge) in enumerate(curves.singles):
                colour = COLOURS[i % len(COLOURS)]
                upper.plot(curves.step, curves.parameters[:, i], color=colour, linewidth=0.8, label=plain(name))
                lower.plot(curves.step, curves.measured[:, charge], color=colour, linewidth=1.6)
            upper.set_title(family, fontsize=10)
            names.set_axis_off()
            names.legend(handles=upper.lines, fontsize=7, handlelength=1.2, loc="upper center")
            lower.set_ylabel(f"charge {FORMS.get(family, '')}")
            lower.set_xlabel("step $k$")
            lower.locator_params(axis="x", nbins=5)
        axes[0][0].set_ylabel(r"parameter $\theta_j$")
        handle = Line2D(
            [], [], color=COLOURS[0], label="above: one parameter; below, in its colour: a charge that holds it"
        )
        figure.legend(handles=[handle], loc="outside lower center", fontsize=8)
        figure.suptitle("Parameters are noisy, charges are smooth", fontsize=11)
    return figure


def effective_rate_figure(panels: Sequence[tuple[str, Curves]]) -> Figure:
    """η/Q of some normalised weights against η/√(Q²) with Q² an exponential average of the squared gradient."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.4 + 4.0 * columns, 1.0 + 3.0 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for place, axis in enumerate(axes):
            if place >= len(panels):
                axis.set_axis_off()
                continue
            title, curves = panels[place]
            for i, column in enumerate(curves.chosen):
                colour = MANY[i % len(MANY)]
                theory = curves.lr / curves.theory["noether"][:, i]
                axis.plot(curves.step, curves.lr / curves.measured[:, column], color=colour, **FAINT)
                axis.plot(curves.step, theory, color=colour, linestyle=DASHES, linewidth=1.3)
            axis.set_title(plain(title), fontsize=9)
            axis.set_xlabel("step $k$")
        axes[0].set_ylabel(r"effective learning rate $\eta/Q$")
        handles = [
            Line2D([], [], color=MANY[0], **FAINT, label=r"measured: $\eta/Q$ of some weights"),
            Line2D([], [], color=MANY[0], linestyle=DASHES, linewidth=1.3, label="theory, in its colour: RMSProp form"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        figure.suptitle("Normalised weights set their own learning rate", fontsize=11)
    return figure
