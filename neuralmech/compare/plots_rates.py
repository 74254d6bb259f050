"""Figures of learning rates and noise: the effective learning rate, and predictions for other batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.batches import BatchCurve
from neuralmech.compare.curves import Curves
from neuralmech.compare.plots import FLOOR
from neuralmech.compare.style import COLOURS, STYLE, plain

DASHES: Any = (0, (4, 2))
MANY = (*COLOURS, "#D55E00", "#E69F00", "#000000")  # no laws here, whose colours these are elsewhere
FAINT: dict[str, Any] = {"linewidth": 3.2, "alpha": 0.4}  # under the theory in the same colour


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


def batch_figure(curves: Sequence[BatchCurve]) -> Figure:
    """How far into training gradients measured at one batch size predict the charges at another."""
    families = list(dict.fromkeys(c.family for c in curves))
    pairs = list(dict.fromkeys((c.source, c.target) for c in curves))
    colours = mpl.colormaps["viridis"](np.linspace(0.1, 0.85, len(pairs)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(6.4, 1.4 + 3.8 * len(families)), 4.2), layout="constrained")
        axes = figure.subplots(1, len(families), squeeze=False, sharey=True)[0]
        for axis, family in zip(axes, families, strict=True):
            for c in curves:
                if c.family == family:
                    seen = np.where(c.error > FLOOR, c.error, np.nan)
                    axis.plot(c.step, seen, color=colours[pairs.index((c.source, c.target))], linewidth=1.3)
            axis.set_yscale("log")
            axis.set_title(family, fontsize=9)
            axis.set_xlabel("step $k$")
        axes[0].set_ylabel("relative RMS error over the charges")
        handles = [
            Line2D([], [], color=colour, label=f"$S = {a}$ predicts $S = {b}$")
            for (a, b), colour in zip(pairs, colours, strict=True)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3 if len(families) > 1 else 2)
        figure.suptitle("Predicting one batch size from another", fontsize=11)
    return figure
