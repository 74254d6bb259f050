"""Figures of balances: what the loss lost as its gradient worked, and how far pairs are from noise equilibrium."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.measure.curves import LossCurve
from neuralmech.compare.measure.orbit import OrbitCurve
from neuralmech.compare.show.drawing import (
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
from neuralmech.compare.show.style import COLOURS, FLOOR, plain

SITES = 24  # drawn of a run
# Order of the loss balance → (colour, dashes), and its label.
STYLES = {"first": ("#D55E00", (0, (1, 1, 4, 1))), "second": ("#000000", (0, (4, 2)))}
LABELS = {
    "first": r"first order: $-\eta\langle g_k,u_k\rangle$ summed",
    "second": r"second order: $-\frac{1}{2}\eta\langle g_k+g_{k+1},u_k\rangle$ summed",
}


def loss_figure(panels: Sequence[tuple[str, LossCurve]], *, narrow: bool = False) -> Figure:
    """Above, what the loss lost; below, how far each prediction of it is off."""
    columns = columns_of(len(panels), narrow=narrow)
    size = max(6.4, 1.2 + 3.6 * columns), 0.0, 5.0
    with styled(narrow=narrow):
        figure, axes = laid_out(len(panels), size, ratios=(3, 2), narrow=narrow, sharex="col")
        for (title, curve), (upper, lower) in zip(panels, axes, strict=True):
            upper.plot(curve.step, curve.measured, color=COLOURS[0], linewidth=2.4, alpha=0.8)
            for order, predicted in curve.predicted.items():
                colour, dashes = STYLES[order]
                off = np.abs(predicted - curve.measured)
                upper.plot(curve.step, predicted, color=colour, linestyle=dashes, linewidth=1.0)
                lower.plot(curve.step, np.where(off > FLOOR, off, np.nan), color=colour, linewidth=1.1)
            logarithmic(lower)
            steps_along(lower)
            upper.set_title(wrapped(plain(title), narrow=narrow), fontsize=9)
        for upper, lower in axes[::columns]:
            upper.set_ylabel(r"change of the loss $L_k-L_0$")
            lower.set_ylabel("|theory − measured|")
        handles = [Line2D([], [], color=COLOURS[0], linewidth=2.4, alpha=0.8, label="measured")]
        handles += [Line2D([], [], color=c, linestyle=d, label=LABELS[o]) for o, (c, d) in STYLES.items()]
        legend_below(figure, handles, 3, narrow=narrow)
        head(figure, "The loss pays for motion", narrow=narrow)
    return figure


def orbit_figure(panels: Sequence[tuple[str, OrbitCurve]], *, narrow: bool = False) -> Figure:
    """Distance of rescale pairs to noise equilibrium, a line per site."""
    columns = columns_of(len(panels), narrow=narrow)
    size = max(6.4, 1.2 + 3.6 * columns), 0.0, 3.6
    with styled(narrow=narrow):
        figure, axes = laid_out(len(panels), size, narrow=narrow, sharey=True)
        for (title, curve), (panel,) in zip(panels, axes, strict=True):
            for number, (site, distance) in enumerate(list(curve.distance.items())[:SITES]):
                colour, dashes = COLOURS[number % len(COLOURS)], "-" if number < len(COLOURS) else "--"
                panel.plot(curve.step, distance, color=colour, linestyle=dashes, linewidth=1.4, label=plain(site))
            logarithmic(panel)
            steps_along(panel)
            panel.set_title(wrapped(plain(title), narrow=narrow), fontsize=9)
            if len(curve.distance) <= len(COLOURS):
                panel.legend(fontsize=SMALLEST)
        for (panel,) in axes[::columns]:
            panel.set_ylabel(r"RMS of $\alpha^*$")
        head(figure, "Distance to noise equilibrium along the rescale orbit", narrow=narrow)
    return figure
