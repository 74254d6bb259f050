"""The figure of how training went: loss, held-out loss and accuracy, gradient norm, learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.measure.training import Band, TrainingCurve
from neuralmech.compare.show.drawing import NARROW, head, legend_below, logarithmic, steps_along, styled, wrapped
from neuralmech.compare.show.style import plain, run_colours

Look = dict[str, Any]  # a run's colour and width
Drawn = Callable[[Axes, TrainingCurve, Look], None]
WIDEST, NARROWEST = 3.0, 1.2  # lines of the first run and of the last: where runs agree, both are seen


def training_figure(panels: Sequence[tuple[str, TrainingCurve]], *, narrow: bool = False) -> Figure:
    """Draw one row for each thing that was measured, a colour for each run; `narrow`: for a phone."""
    curves = [curve for _, curve in panels]
    rows = [(label, draw) for label, is_there, draw in ROWS if any(is_there(curve) for curve in curves)]
    widths = np.linspace(WIDEST, NARROWEST, len(panels)) if len(panels) > 1 else [NARROWEST]
    looks: list[Look] = [
        {"color": colour, "linewidth": width} for colour, width in zip(run_colours(len(panels)), widths, strict=True)
    ]
    with styled(narrow=narrow):
        figure = Figure(figsize=(NARROW if narrow else 6.4, 0.9 + 1.45 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
        for axis, (label, draw) in zip(axes, rows, strict=True):
            for curve, look in zip(curves, looks, strict=True):
                draw(axis, curve, look)
            axis.set_ylabel(label)
        steps_along(axes[-1])
        colour = looks[0]["color"] if len(panels) == 1 else "#555555"
        handles = [Line2D([], [], color=colour, label="of each batch (band: least to largest)")]
        if any(len(curve.held_out) for curve in curves):
            handles.append(Line2D([], [], **{**HELD_OUT, "color": colour}, label="on held-out data"))
        if len(panels) > 1:
            named = zip(panels, looks, strict=True)
            handles += [Line2D([], [], **look, label=wrapped(plain(name), narrow=narrow)) for (name, _), look in named]
        legend_below(figure, handles, 2, narrow=narrow)
        head(figure, "How training went", narrow=narrow)
    return figure


HELD_OUT = {"marker": "o", "markersize": 4, "linestyle": (0, (2, 1)), "linewidth": 1.0, "markerfacecolor": "white"}


def _band(axes: Axes, step: np.ndarray, band: Band, look: Look) -> None:
    axes.fill_between(step, band.low, band.high, color=look["color"], alpha=0.18, linewidth=0)
    axes.plot(step, band.mean, **look)


def _positive(axes: Axes, band: Band) -> None:
    """Logarithmic where the numbers are positive and span much."""
    low, high = np.nanmin(band.low), np.nanmax(band.high)
    if low > 0 and high > 5 * low:
        logarithmic(axes)


def _loss(axes: Axes, curve: TrainingCurve, look: Look) -> None:
    if curve.loss.is_there:
        _band(axes, curve.step, curve.loss, look)
        _positive(axes, curve.loss)
    _held_out(axes, curve, "loss", look)


def _held_out(axes: Axes, curve: TrainingCurve, name: str, look: Look) -> None:
    size = 3.0 + 1.2 * look["linewidth"]
    axes.plot(curve.held_out["step"], curve.held_out[name], **{**HELD_OUT, "color": look["color"], "markersize": size})


def _accuracy(axes: Axes, curve: TrainingCurve, look: Look) -> None:
    _held_out(axes, curve, "accuracy", look)


def _gradient(axes: Axes, curve: TrainingCurve, look: Look) -> None:
    _band(axes, curve.step, curve.gradient_norm, look)
    _positive(axes, curve.gradient_norm)


def _lr(axes: Axes, curve: TrainingCurve, look: Look) -> None:
    axes.plot(curve.step, curve.lr.mean, **look)
    axes.axhline(0, alpha=0)  # in view, so that what changes little does not look as if it changed much


# What stands beside an axis, whether a run has it, and how it is drawn.
ROWS: tuple[tuple[str, Callable[[TrainingCurve], bool], Drawn], ...] = (
    ("loss", lambda c: c.loss.is_there or bool(c.held_out["loss"].notna().any()), _loss),
    ("accuracy", lambda c: bool(c.held_out["accuracy"].notna().any()), _accuracy),
    (r"gradient norm $|g|$", lambda c: c.gradient_norm.is_there, _gradient),
    (r"learning rate $\eta$", lambda c: c.lr.is_there, _lr),
)
