"""The figure of norms: each layer's gradient, and how far a step moves the layer; curves of few, a map of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.measure.norms import NormsCurve
from neuralmech.compare.show.cells import shortened
from neuralmech.compare.show.drawing import (
    LINE,
    SMALLEST,
    Powers,
    columns_of,
    head,
    laid_out,
    legend_below,
    logarithmic,
    steps_along,
    styled,
    wrapped,
)
from neuralmech.compare.show.ends import NAME_LENGTH, ROOM, in_short, name_ends
from neuralmech.compare.show.style import plain, run_colours

FEW = 10  # layers drawn as curves
NAMED = 40  # layers of a map that have their names; of more every second one, or third
DASHED: Any = (0, (3, 1.5))
WHAT = {"gradient": r"gradient norm $|g|$", "relative": r"relative step $|\Delta\theta|/|\theta|$"}


def norms_figure(panels: Sequence[tuple[str, NormsCurve]], *, narrow: bool = False) -> Figure:
    """For each run the norms of its layers' gradients and, below, its relative steps; `narrow`: for a phone.

    Where all runs have the same layers one legend names them; else each run has its own, as colours go by its layers.
    """
    rows = [name for name in WHAT if any(np.isfinite(getattr(curve, name)).any() for _, curve in panels)]
    columns = columns_of(len(panels), narrow=narrow)
    as_map = max(len(curve.layers) for _, curve in panels) > FEW
    named_ends = not as_map and len(panels) == 1 and not narrow
    apart = not as_map and len({(curve.layers, curve.weighted) for _, curve in panels}) > 1
    with styled(narrow=narrow, **({"axes.grid": False} if as_map else {})):
        heights = [_map_height(panels) if as_map else 2.3] * len(rows)
        heights += [_names_height(panels, narrow=narrow)] if apart else []
        size = 1.4 + 4.2 * columns + (ROOM if named_ends or (as_map and columns == 1) else 0), 0.9, sum(heights)
        figure, axes = laid_out(len(panels), size, ratios=heights, narrow=narrow, sharex=len(panels) == 1)
        scales = {name: _scale([getattr(curve, name) for _, curve in panels]) for name in rows}
        for place, ((title, curve), band) in enumerate(zip(panels, axes, strict=True)):
            column, own = place % columns, band[: len(rows)]
            for axis, name in zip(own, rows, strict=True):
                draw = _map if as_map else _curves
                draw(axis, curve, name, scales[name])
                if as_map and column == columns - 1:
                    where: Any = {"location": "bottom", "aspect": 40} if narrow else {"location": "right", "pad": 0.02}
                    figure.colorbar(axis.collections[0], ax=axis, label=WHAT[name], format=Powers(), **where)
                elif not as_map and column == 0:
                    axis.set_ylabel(WHAT[name], fontsize=9)
                if named_ends:
                    names = [(n, c) for n, c in zip(curve.layers, _colours(curve), strict=True)]
                    name_ends(axis, float(curve.step[-1]), getattr(curve, name)[-1], *zip(*names, strict=True))
            own[0].set_title(wrapped(plain(title), narrow=narrow), fontsize=9)
            steps_along(own[-1])
            for below in band[len(rows) :]:
                below.set_axis_off()
                below.legend(handles=_handles(curve), **_names(narrow=narrow))
        if not as_map and not named_ends and not apart:
            legend_below(figure, _handles(panels[0][1]), 4, narrow=narrow)
        head(figure, "Gradients and steps, layer by layer" if len(rows) > 1 else _title(rows[0]), narrow=narrow)
    return figure


def _title(name: str) -> str:
    return "Gradients, layer by layer" if name == "gradient" else "Steps, layer by layer"


def _map_height(panels: Sequence[tuple[str, NormsCurve]]) -> float:
    """Inches: enough for every named layer to be read."""
    most = max(len(curve.layers) for _, curve in panels)
    return 0.6 + 0.13 * min(NAMED, most)


def _scale(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Least and largest positive number of all runs, so that they compare."""
    seen = np.concatenate([v[np.isfinite(v) & (v > 0)] for v in values])
    if not len(seen):
        return 0.1, 1.0
    low, high = float(seen.min()), float(seen.max())
    return (low, high) if low < high else (0.5 * low, 2 * high)


def _colours(curve: NormsCurve) -> list[str]:
    """From the first layer, dark, to the last, light: of those with weights, and of those without, which are dashed."""
    return run_colours(curve.weighted) + run_colours(len(curve.layers) - curve.weighted)


def _dashes(curve: NormsCurve) -> list[Any]:
    return ["-"] * curve.weighted + [DASHED] * (len(curve.layers) - curve.weighted)


def _curves(axes: Axes, curve: NormsCurve, name: str, scale: tuple[float, float]) -> None:
    values = getattr(curve, name)
    for column, colour, dashes in zip(values.T, _colours(curve), _dashes(curve), strict=True):
        axes.plot(curve.step, np.where(column > 0, column, np.nan), color=colour, linestyle=dashes, linewidth=1.4)
    logarithmic(axes)
    axes.set_ylim(scale[0] / 1.3, scale[1] * 1.3)
    steps_along(axes, "")


def _map(axes: Axes, curve: NormsCurve, name: str, scale: tuple[float, float]) -> None:
    values = getattr(curve, name)
    drawn = np.where(values > 0, values, np.nan)  # what is zero, or was not measured, stays white
    look: dict[str, Any] = {"norm": LogNorm(*scale), "cmap": "viridis", "rasterized": True}
    axes.pcolormesh(_edges(curve.step), np.arange(len(curve.layers) + 1) - 0.5, drawn.T, **look)
    axes.axhline(curve.weighted - 0.5, color="white", linewidth=2.5)
    axes.invert_yaxis()  # the first layer on top
    every = -(-len(curve.layers) // NAMED)
    at = np.arange(0, len(curve.layers), every)
    axes.set_yticks(at, [plain(shortened(curve.layers[i], NAME_LENGTH)) for i in at], fontsize=SMALLEST)
    steps_along(axes, "")


def _edges(step: np.ndarray) -> np.ndarray:
    """Between steps and around them."""
    if len(step) < 2:
        return np.array([step[0] - 0.5, step[0] + 0.5])
    middle = (step[1:] + step[:-1]) / 2
    return np.concatenate([[1.5 * step[0] - 0.5 * step[1]], middle, [1.5 * step[-1] - 0.5 * step[-2]]])


def _handles(curve: NormsCurve) -> list[Line2D]:
    """What each colour and dash means in a run's panels."""
    return [
        Line2D([], [], color=colour, linestyle=dashes, label=name)
        for name, colour, dashes in zip(in_short(curve.layers), _colours(curve), _dashes(curve), strict=True)
    ]


def _names(*, narrow: bool) -> dict[str, Any]:
    """How a run's own names stand under it."""
    return {"loc": "upper center", "ncols": 1 if narrow else 2, "fontsize": SMALLEST, "handlelength": 2.2}


def _names_height(panels: Sequence[tuple[str, NormsCurve]], *, narrow: bool) -> float:
    """Inches that names under the panels take."""
    most = max(len(curve.layers) for _, curve in panels)
    return 0.2 + LINE * -(-most // _names(narrow=narrow)["ncols"])
