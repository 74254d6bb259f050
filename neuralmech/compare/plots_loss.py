"""The loss of a full-batch run against the work of its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.loss_balance import LossCurve
from neuralmech.compare.plots import FLOOR
from neuralmech.compare.style import COLOURS, STYLE, plain

STYLES = {"first": ("#D55E00", (0, (1, 1, 4, 1))), "second": ("#000000", (0, (4, 2)))}
LABELS = {
    "first": r"first order: $-\eta\langle g_k,u_k\rangle$ summed",
    "second": r"second order: $-\frac{1}{2}\eta\langle g_k+g_{k+1},u_k\rangle$ summed",
}


def loss_figure(panels: Sequence[tuple[str, LossCurve]]) -> Figure:
    """Above, what the loss lost; below, how far each prediction of it is off."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(6.4, 1.2 + 3.6 * len(panels)), 5.0), layout="constrained")
        axes = figure.subplots(2, len(panels), squeeze=False, sharex="col", height_ratios=(3, 2))
        for (title, curve), upper, lower in zip(panels, axes[0], axes[1], strict=True):
            upper.plot(curve.step, curve.measured, color=COLOURS[0], linewidth=2.4, alpha=0.8)
            for order, predicted in curve.predicted.items():
                colour, dashes = STYLES[order]
                off = np.abs(predicted - curve.measured)
                upper.plot(curve.step, predicted, color=colour, linestyle=dashes, linewidth=1.0)
                lower.plot(curve.step, np.where(off > FLOOR, off, np.nan), color=colour, linewidth=1.1)
            lower.set_yscale("log")
            lower.set_xlabel("step $k$")
            upper.set_title(plain(title), fontsize=9)
        axes[0][0].set_ylabel(r"change of the loss $L_k-L_0$")
        axes[1][0].set_ylabel("|theory − measured|")
        handles = [Line2D([], [], color=COLOURS[0], linewidth=2.4, alpha=0.8, label="measured")]
        handles += [Line2D([], [], color=c, linestyle=d, label=LABELS[o]) for o, (c, d) in STYLES.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
        figure.suptitle("The loss pays for motion", fontsize=11)
    return figure
