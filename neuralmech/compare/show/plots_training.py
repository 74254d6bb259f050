"""The figure of how training went: loss, held-out loss and accuracy, gradient norm, learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.measure.training import Band, TrainingCurve
from neuralmech.compare.show.style import COLOURS, NARROW, head, legend_below, plain, run_colours, styled, wrapped

Drawn = Callable[[Axes, TrainingCurve, str], None]


def training_figure(panels: Sequence[tuple[str, TrainingCurve]], *, narrow: bool = False) -> Figure:
    """Draw one row for each thing that was measured, a colour for each run; `narrow`: for a phone."""
    curves = [curve for _, curve in panels]
    rows = [(label, draw) for label, is_there, draw in ROWS if any(is_there(curve) for curve in curves)]
    colours = [COLOURS[0]] if len(panels) == 1 else run_colours(len(panels))
    with styled(narrow=narrow):
        figure = Figure(figsize=(NARROW if narrow else 6.4, 0.9 + 1.45 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
        for axis, (label, draw) in zip(axes, rows, strict=True):
            for curve, colour in zip(curves, colours, strict=True):
                draw(axis, curve, colour)
            axis.set_ylabel(label)
        axes[-1].set_xlabel("step $k$")
        handles = [Line2D([], [], color=colours[0], label="of each batch (band: least to largest)")]
        if any(len(curve.held_out) for curve in curves):
            handles.append(Line2D([], [], color=colours[0], **HELD_OUT, label="on held-out data"))
        if len(panels) > 1:
            named = zip(panels, colours, strict=True)
            handles += [
                Line2D([], [], color=colour, label=wrapped(plain(title), narrow=narrow)) for (title, _), colour in named
            ]
        legend_below(figure, handles, 2, narrow=narrow)
        head(figure, "How training went", narrow=narrow)
    return figure


HELD_OUT = {"marker": "o", "markersize": 4, "linestyle": (0, (2, 1)), "linewidth": 1.0, "markerfacecolor": "white"}


def _band(axes: Axes, step: np.ndarray, band: Band, colour: str) -> None:
    axes.fill_between(step, band.low, band.high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(step, band.mean, color=colour, linewidth=1.2)


def _positive(axes: Axes, band: Band) -> None:
    """Logarithmic where the numbers are positive and span much."""
    low, high = np.nanmin(band.low), np.nanmax(band.high)
    if low > 0 and high > 5 * low:
        axes.set_yscale("log")


def _loss(axes: Axes, curve: TrainingCurve, colour: str) -> None:
    if curve.loss.is_there:
        _band(axes, curve.step, curve.loss, colour)
        _positive(axes, curve.loss)
    _held_out(axes, curve, "loss", colour)


def _held_out(axes: Axes, curve: TrainingCurve, name: str, colour: str) -> None:
    axes.plot(curve.held_out["step"], curve.held_out[name], color=colour, **HELD_OUT)


def _accuracy(axes: Axes, curve: TrainingCurve, colour: str) -> None:
    _held_out(axes, curve, "accuracy", colour)


def _gradient(axes: Axes, curve: TrainingCurve, colour: str) -> None:
    _band(axes, curve.step, curve.gradient_norm, colour)
    _positive(axes, curve.gradient_norm)


def _lr(axes: Axes, curve: TrainingCurve, colour: str) -> None:
    axes.plot(curve.step, curve.lr.mean, color=colour, linewidth=1.4)
    axes.axhline(0, alpha=0)  # in view, so that what changes little does not look as if it changed much


# What stands beside an axis, whether a run has it, and how it is drawn.
ROWS: tuple[tuple[str, Callable[[TrainingCurve], bool], Drawn], ...] = (
    ("loss", lambda c: c.loss.is_there or bool(c.held_out["loss"].notna().any()), _loss),
    ("accuracy", lambda c: bool(c.held_out["accuracy"].notna().any()), _accuracy),
    (r"gradient norm $|g|$", lambda c: c.gradient_norm.is_there, _gradient),
    (r"learning rate $\eta$", lambda c: c.lr.is_there, _lr),
)
