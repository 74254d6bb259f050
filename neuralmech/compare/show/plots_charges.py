"""Figures: measured charges in colour, theories dashed, and how far off each theory is.

Plots draw what `errors` computed; they never recompute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from neuralmech.compare.measure.curves import Curves
from neuralmech.compare.measure.views import METRIC
from neuralmech.compare.show.drawing import (
    NARROW,
    SMALLEST,
    columns_of,
    head,
    laid_out,
    legend_below,
    logarithmic,
    steps_along,
    styled,
    wrapped,
)
from neuralmech.compare.show.ends import ROOM, in_short, name_ends
from neuralmech.compare.show.style import COLOURS, FLOOR, FORMS, MEASURED, law_line, named, plain
from neuralmech.laws import LAWS

# Laws drawn over the charges; the discrete ones cannot be told from the measured curve.
DRAWN = ("gradient_flow", "first_order_flow", "modified_flow", "constant_metric", "moving_metric")
DASHES: Any = (0, (4, 2))
MANY = (*COLOURS, "#D55E00", "#E69F00", "#000000")  # no laws here, whose colours these are elsewhere
FAR = 100.0  # times the others
FAINT: dict[str, Any] = {"linewidth": 3.2, "alpha": 0.4}  # under the theory in the same colour
BANDS = ((0.0, 1.0, 0.08), (0.1, 0.9, 0.12), (0.25, 0.75, 0.18))  # quantiles of the charges and opacity


def family_figure(family: str, panels: Sequence[tuple[str, Curves]], *, narrow: bool = False) -> Figure:
    """For each run the charges, measured and in theory, and below them each law's error, if any law holds.

    `narrow`: for a phone, the runs below each other.
    """
    columns = columns_of(len(panels), narrow=narrow)
    lawful = any(curves.error for _, curves in panels)
    heights = (3, 2) if lawful else (3,)
    named_ends = len(panels) == 1 and not narrow
    size = 1.4 + 4.2 * columns + (ROOM if named_ends else 0.0), 0.9, 0.92 * sum(heights)
    with styled(narrow=narrow):
        figure, axes = laid_out(len(panels), size, ratios=heights, narrow=narrow)
        for (title, curves), (upper, *lower) in zip(panels, axes, strict=True):
            _run(upper, lower, curves)
            upper.set_title(wrapped(plain(title), narrow=narrow), fontsize=9)
        for first in axes[::columns]:
            for panel, label in zip(first, (_charge(family), "relative error"), strict=False):
                panel.set_ylabel(label, fontsize=9)
        if named_ends:
            _, curves = panels[0]
            names = curves.names or [""] * len(curves.chosen)
            colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
            name_ends(axes[0][0], float(curves.step[-1]), curves.measured[-1, curves.chosen], names, colours)
        _legend(figure, [curves for _, curves in panels], narrow=narrow)
        count = panels[0][1].measured.shape[1]
        noun = f"{count:,} {named(family)}" if len(panels) == 1 else named(family).capitalize()
        head(figure, f"{noun}: measured" + (" against theory" if lawful else "; no law holds"), narrow=narrow)
    return figure


def _run(upper: Axes, lower: Sequence[Axes], curves: Curves) -> None:
    """One run's charges and, below, what laws are off."""
    _charges(upper, curves)
    for panel in lower:
        panel.sharex(upper)
        upper.tick_params(labelbottom=False)
        _errors(panel, curves)
    steps_along((upper, *lower)[-1])


def _charge(family: str) -> str:
    return f"{named(family, 'charge')}{chr(10) if family.endswith(METRIC) else ' '}{FORMS.get(family, '')}"


def _charges(axes: Axes, curves: Curves) -> None:
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
    logarithmic(axes)


def _legend(figure: Figure, curves: Sequence[Curves], *, narrow: bool) -> None:
    names = list(dict.fromkeys(name for c in curves for name in c.error))
    drawn = max(len(c.chosen) for c in curves)
    measured = tuple(Line2D([], [], color=colour, **MEASURED) for colour in COLOURS[:drawn])
    handles: list[Any] = [measured if len(measured) > 1 else next(iter(measured))]
    labels = ["measured: some charges"]
    if narrow and len(curves) == 1 and curves[0].names:  # there is no room beside the curves
        order = np.argsort(-curves[0].measured[-1, curves[0].chosen])  # from top to bottom, as they end
        handles = [measured[i % len(measured)] for i in order]
        shown = in_short(curves[0].names)
        labels = [shown[i] for i in order]
    if any(c.measured.shape[1] > len(c.chosen) for c in curves):
        handles.append(Patch(color=COLOURS[0], alpha=0.3, linewidth=0))
        labels.append("measured: all, 10–90 %, 25–75 %")
    lines = [Line2D([], [], **law_line(n), label=LAWS[n].label if n in LAWS else n) for n in names]
    legend_below(
        figure,
        [*handles, *lines],
        2 if len(curves) == 1 else 4,
        narrow=narrow,
        labels=[*labels, *(line.get_label() for line in lines)],
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.1)},
        handlelength=3.5,
    )


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Range of some values with a margin."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def parameters_figure(families: Sequence[tuple[str, Curves]], *, narrow: bool = False) -> Figure:
    """Above, parameters of one run; below, their charges in the same colours; families beside each other.

    `narrow`: for a phone, families below each other.
    """
    columns = 1 if narrow else len(families)
    bands = len(families) // columns
    with styled(narrow=narrow):
        width = NARROW if narrow else max(6.4, 1.2 + 3.4 * len(families))
        figure = Figure(figsize=(width, 6.2 * bands), layout="constrained")
        axes = figure.subplots(3 * bands, columns, squeeze=False, height_ratios=(4, 4, 1.2) * bands)
        for i, (family, curves) in enumerate(families):
            row, column = divmod(i, columns)
            upper, lower, names = axes[3 * row : 3 * row + 3, column]
            _parameters(upper, lower, curves)
            names.set_axis_off()
            names.legend(handles=upper.lines, fontsize=SMALLEST, handlelength=1.2, loc="upper center")
            upper.set_title(family, fontsize=10)
            lower.set_ylabel(f"charge {FORMS.get(family, '')}")
        for upper in axes[::3, 0]:
            upper.set_ylabel(r"parameter $\theta_j$")
        key = "above: one parameter; below, in its colour: a charge that holds it"
        handle = Line2D([], [], color=COLOURS[0], label=wrapped(key, narrow=narrow))
        legend_below(figure, [handle], 1, narrow=narrow)
        head(figure, "Single parameters, and charges that they are part of", narrow=narrow)
    return figure


def _parameters(upper: Axes, lower: Axes, curves: Curves) -> None:
    lower.sharex(upper)
    upper.tick_params(labelbottom=False)
    for i, (name, charge) in enumerate(curves.singles):
        colour = COLOURS[i % len(COLOURS)]
        upper.plot(curves.step, curves.parameters[:, i], color=colour, linewidth=0.8, label=plain(name))
        lower.plot(curves.step, curves.measured[:, charge], color=colour, linewidth=1.6)
    steps_along(lower)


def _top(rates: Sequence[np.ndarray]) -> float | None:
    """Where the view ends if some curves leave others far below: η/Q of weights that get no gradient has no bound."""
    highest = np.array([np.max(values) for values in rates])
    kept = highest[highest <= FAR * np.median(highest)]
    return None if len(kept) in (0, len(highest)) else 1.5 * float(kept.max())


def effective_rate_figure(panels: Sequence[tuple[str, Curves]], *, narrow: bool = False) -> Figure:
    """η/Q of some normalised weights against η/√(Q²) with Q² an exponential average of the squared gradient."""
    columns = columns_of(len(panels), narrow=narrow)
    names = panels[0][1].names if len(panels) == 1 else []
    with styled(narrow=narrow):
        width = 1.4 + 4.0 * columns + (ROOM if names else 0.0)
        figure, axes = laid_out(len(panels), (width, 1.0, 3.0), narrow=narrow)
        for (title, curves), (axis,) in zip(panels, axes, strict=True):
            measured = [curves.lr / curves.measured[:, column] for column in curves.chosen]
            for i, values in enumerate(measured):
                colour = MANY[i % len(MANY)]
                theory = curves.lr / curves.theory["noether"][:, i]
                axis.plot(curves.step, values, color=colour, **FAINT)
                axis.plot(curves.step, theory, color=colour, linestyle=DASHES, linewidth=1.3)
            if (top := _top(measured)) is not None:
                axis.set_ylim(0.0, top)
            axis.set_title(wrapped(plain(title), narrow=narrow), fontsize=9)
            steps_along(axis)
        for (axis,) in axes[::columns]:
            axis.set_ylabel(r"effective learning rate $\eta/Q$")
        handles = _named_rates(axes[0][0], panels[0][1], narrow=narrow) if names else []
        handles += [
            Line2D([], [], color=MANY[0], **FAINT, label=r"measured: $\eta/Q$ of some weights"),
            Line2D([], [], color=MANY[0], linestyle=DASHES, linewidth=1.3, label="theory, in its colour: RMSProp form"),
        ]
        legend_below(figure, handles, 2, narrow=narrow)
        head(figure, "Normalised weights set their own learning rate", narrow=narrow)
    return figure


def _named_rates(axes: Axes, curves: Curves, *, narrow: bool) -> list[Line2D]:
    """Write whose rates they are beside them or, where there is no room, into the legend, from top to bottom."""
    colours = [MANY[i % len(MANY)] for i in range(len(curves.names))]
    last = curves.lr[-1] / curves.measured[-1, curves.chosen]
    if not narrow:
        name_ends(axes, float(curves.step[-1]), last, curves.names, colours)
        return []
    shown = in_short(curves.names)
    return [Line2D([], [], color=colours[i], **FAINT, label=shown[i]) for i in np.argsort(-last)]
