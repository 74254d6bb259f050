"""Gradient fields of a real softmax, BatchNorm and ReLU over all of their parameters, with flow and SGD on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from source_figures.style import BLACK, BLUE, GREY, PINK, legend_below, letters, new_figure, styled
from source_figures.tiny import Tiny, normalised, relu_pair, softmax_pair

Array = NDArray[np.float64]
REACH = 2.5  # half the width of a panel
STEPS, BATCH = 60, 8  # of SGD
ROUNDING = 1e-15  # what moves a translation charge
ARROWS = 14  # on a side
VALLEY = LinearSegmentedColormap.from_list("valley", ["#F0C98F", "#FFFFFF"])
CHARGE = "#7A7A7A"
ENDS = ("stays on its line", "leaves its circle outwards", "leaves its hyperbola")


@dataclass(frozen=True)
class View:
    """A model seen in its plane: titles, axes, how long the flow runs, SGD's η, and starts (SGD: the first two)."""

    tiny: Tiny
    title: str
    charge: str
    axes: tuple[str, str]
    duration: float
    lr: float
    starts: tuple[tuple[float, float], ...]


def views() -> tuple[View, ...]:
    """The three models; discovery finds their charges."""
    return (
        View(
            softmax_pair(),
            "softmax: two classes, one input",
            "$w_1+w_2$",
            ("$w_1$", "$w_2$"),
            25.0,
            0.6,
            ((2.3, -0.6), (1.6, -2.3), (2.4, -1.6), (-2.1, 2.3)),
        ),
        View(
            normalised(2),
            "BatchNorm: a neuron of two inputs",
            "$w_1^2+w_2^2$",
            ("$w_1$", "$w_2$"),
            12.0,
            0.4,
            ((-0.8, 0.25), (-0.9, -1.3), (1.1, 1.9), (-2.2, 0.8), (0.2, 0.9)),
        ),
        View(
            relu_pair(),
            "ReLU: weights in and out",
            r"$w_\mathrm{in}^2-w_\mathrm{out}^2$",
            (r"$w_\mathrm{in}$", r"$w_\mathrm{out}$"),
            6.0,
            0.12,
            ((0.75, -1.85), (-1.5, 0.8), (2.2, -0.9), (0.3, 0.9), (-2.2, -1.8), (1.9, 2.2)),
        ),
    )


@styled
def draw() -> Figure:
    """Above, fields and trajectories in the planes; below, the charges along SGD against the sum of its drive."""
    figure = new_figure(11.5, 6.9)
    upper, lower = figure.subplots(2, 3, height_ratios=(2.2, 1))
    seen = views()
    for plane, along, view in zip(upper, lower, seen, strict=True):
        _field(plane, view)
        for start in view.starts:
            _flow(plane, view.tiny.flow(np.array(start), view.duration))
        for start, colour in zip(view.starts[:2], (BLACK, PINK), strict=False):
            path, slopes = view.tiny.sgd(np.array(start), view.lr, STEPS, BATCH)
            plane.plot(*path.T, "o-", color=colour, markersize=2.6, linewidth=0.7, zorder=5)
            _drift(along, view, path, slopes, colour)
        plane.set(xlabel=view.axes[0], ylabel=view.axes[1])
    letters([*upper, *lower], [view.title for view in seen] + [f"SGD {what}" for what in ENDS])
    handles = [
        Patch(color="#F0C98F", label="low loss"),
        Line2D([], [], color="#555555", marker=">", markersize=4, linewidth=1, label="$-g$, by autograd"),
        Line2D([], [], color=CHARGE, linestyle="--", linewidth=1, label="level sets of the charge"),
        Line2D([], [], color=BLUE, linewidth=2.2, label="gradient flow"),
        Line2D([], [], color=BLACK, marker="o", markersize=3, linewidth=0.8, label="SGD, two runs"),
        Line2D([], [], color=GREY, linewidth=3, label=r"theory: $\sum\eta^2D$"),
    ]
    legend_below(figure, handles, 6)
    return figure


def grid(points: int) -> Array:
    """Points of a square grid over a panel, none on an axis: (points², 2)."""
    line = np.linspace(-REACH, REACH, points + points % 2)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def _field(axes: Axes, view: View) -> None:
    at = grid(160)
    side = round(len(at) ** 0.5)
    x, y = at.T.reshape(2, side, side)
    loss, charge = view.tiny.losses(at), view.tiny.charges(at)
    levels = np.unique(np.quantile(loss, np.linspace(0, 1, 24)))
    norm = BoundaryNorm(levels, VALLEY.N)  # a shade for each share of the points
    axes.contourf(x, y, loss.reshape(x.shape), levels=levels.tolist(), cmap=VALLEY, norm=norm, zorder=0)
    values = np.unique(view.tiny.charges(np.array(view.starts)).round(9))
    lines = axes.contour(x, y, charge.reshape(x.shape), levels=values.tolist(), colors=CHARGE, linewidths=0.9)
    lines.set_linestyle("--")
    coarse = 0.94 * grid(ARROWS)
    g = -view.tiny.gradients(coarse)
    length = np.hypot(*g.T)
    g *= (0.3 * np.tanh(length / np.median(length)) / np.maximum(length, 1e-300))[:, None]
    axes.quiver(*coarse.T, *g.T, color="#555555", angles="xy", scale_units="xy", scale=1, width=0.005, zorder=2)
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xticks=range(-2, 3), yticks=range(-2, 3))
    axes.grid(visible=False)


def _flow(axes: Axes, path: Array) -> None:
    axes.plot(*path.T, color=BLUE, linewidth=2.2, zorder=3)
    axes.plot(*path[0], "o", color=BLUE, markersize=5, zorder=4)
    travelled = np.cumsum(np.hypot(*np.diff(path, axis=0).T))
    middle = int(np.searchsorted(travelled, 0.5 * travelled[-1]))
    axes.annotate(
        "", path[middle + 1], path[middle], zorder=4,
        arrowprops={"arrowstyle": "-|>", "color": BLUE, "mutation_scale": 13},
    )  # fmt: skip


def _drift(axes: Axes, view: View, path: Array, slopes: Array, colour: str) -> None:
    """Charge along SGD since its start, over η²D summed, D the same form of the step's gradient."""
    unit = ROUNDING if view.tiny.family == "translation" else 1.0
    charge, law = view.tiny.charges(path), view.tiny.law(path[0], slopes, view.lr)
    axes.plot((law - charge[0]) / unit, color=GREY, linewidth=3.5)
    axes.plot((charge - charge[0]) / unit, color=colour, linewidth=1.0)
    axes.set(xlabel="step of SGD", ylabel=f"change of {view.charge}" + (r", $\times10^{15}$" if unit < 1 else ""))
