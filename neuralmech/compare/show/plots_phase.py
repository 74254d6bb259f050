"""Phase portraits: charges against their velocities, with the oscillator that they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.measure.phase import LAW, PhaseCurve
from neuralmech.compare.show.drawing import columns_of, head, laid_out, legend_below, styled, wrapped
from neuralmech.compare.show.style import COLOURS, FORMS, law_line, named, plain
from neuralmech.laws import LAWS

DOTS = 150  # drawn of each charge
ROOM = 0.1  # around what was measured: a bad theory may leave the view
OVER = {**law_line(LAW), "linewidth": 1.0}  # narrow enough to leave the dots visible
MARKS = {"linestyle": "", "marker": "o", "markersize": 5, "alpha": 0.55, "markeredgewidth": 0}


def phase_figure(panels: Sequence[tuple[str, PhaseCurve]], *, narrow: bool = False) -> Figure:
    """Draw a panel per run and family: measured as dots, the modified flow over them."""
    columns = columns_of(len(panels), narrow=narrow)
    with styled(narrow=narrow):
        figure, axes = laid_out(len(panels), (1.6 + 4.0 * columns, 1.1, 3.4), narrow=narrow)
        for (axis,), (title, curve) in zip(axes, panels, strict=True):
            _portrait(axis, curve)
            what = f"{named(curve.family)}: {curve.oscillator.regime[0]}"
            over = wrapped(plain(title), narrow=narrow)
            axis.set_title(f"{over}\n{what}" if title else what, fontsize=9)
        handles = [
            Line2D([], [], color=COLOURS[0], **MARKS, label="measured: some charges, from ring to rest"),
            Line2D([], [], **OVER, label=LAWS[LAW].label),
        ]
        legend_below(figure, handles, 2, narrow=narrow, handlelength=3.5)
        head(figure, "Charges and their velocities", narrow=narrow)
    return figure


def _portrait(axes: Axes, curve: PhaseCurve) -> None:
    every = max(1, len(curve.value) // DOTS)
    for i, (value, velocity) in enumerate(zip(curve.value.T, curve.velocity.T, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(value[::every], velocity[::every], color=colour, **MARKS)
        axes.plot(value[:1], velocity[:1], marker="o", markersize=7, color=colour, markerfacecolor="none")
    axes.plot(curve.theory_value, curve.theory_velocity, **OVER)
    for zero in (axes.axhline, axes.axvline):
        zero(0, color="#999999", linewidth=0.6, zorder=0)
    for values, limit in ((curve.value, axes.set_xlim), (curve.velocity, axes.set_ylim)):
        low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
        margin = ROOM * (high - low) or 1.0
        limit(low - margin, high + margin)
    axes.set_xlabel(f"charge $Q$: {FORMS.get(curve.family, '')}")
    axes.set_ylabel(r"velocity $\Delta Q/\Delta t$, $\,t=\sum\eta$")
    axes.locator_params(nbins=6)
