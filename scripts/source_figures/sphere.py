"""Three weights under BatchNorm: gradient flow stays on its sphere, SGD leaves it outwards."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import NDArray

from source_figures.fields import VALLEY
from source_figures.style import BLACK, BLUE, GREY, PINK, legend_below, letters, new_figure, styled
from source_figures.tiny import Tiny, normalised

Array = NDArray[np.float64]
CAMERA = (22.0, 45.0)  # elevation and azimuth, in degrees
DURATION = 60.0  # of gradient flow
RING, MERIDIANS = 0.35, 10  # where flow starts: so far from the direction of most loss, in radians, and how many
STEPS, BATCH = 300, 8  # of SGD
RUNS = ((0.3, 2, BLACK), (0.6, 9, PINK))  # its η, and on which meridian it starts
REACH = 1.15
ARROWS = 260


@styled
def draw() -> Figure:
    """Field and flow on the unit sphere; SGD above it; squared radii against the sum of the drive."""
    tiny = normalised(3)
    starts = ring(tiny)
    figure = new_figure(11.5, 4.7)
    spaces = [figure.add_subplot(1, 3, i, projection="3d", computed_zorder=False) for i in (1, 2)]
    radii = figure.add_subplot(1, 3, 3)
    flows = [tiny.flow(start, DURATION) for start in starts]
    for space, reach in zip(spaces, (REACH, 1.45 * REACH), strict=True):
        _sphere(space, tiny, reach)
    _arrows(spaces[0], tiny)
    for path in flows:
        _line(spaces[0], path, BLUE, 1.8)
    for lr, meridian, colour in RUNS:
        path, slopes = tiny.sgd(starts[meridian], lr, STEPS, BATCH)
        charge = tiny.charges(path)
        _line(spaces[1], flows[meridian], BLUE, 1.8)
        _line(spaces[1], path, colour, 0.9, marker="o", markersize=2.2)
        _line(spaces[1], np.sqrt(charge[-1]) * outline(), colour, 1.0, linestyle=":")
        radii.plot(tiny.law(path[0], slopes, lr), color=GREY, linewidth=4)
        radii.plot(charge, color=colour, linewidth=1.2)
    radii.plot(np.linspace(0, STEPS, len(flows[0])), tiny.charges(flows[0]), color=BLUE, linewidth=2.2)
    radii.set(xlabel="step of SGD", ylabel=r"$|w|^2$", box_aspect=0.9)
    letters([*spaces, radii], ["gradient flow on its sphere", "SGD leaves it outwards", "squared radius"])
    handles = [
        Line2D([], [], color="#555555", marker=">", markersize=4, linewidth=1, label="$-g$"),
        Line2D([], [], color=BLUE, linewidth=2.2, label="gradient flow"),
        *(
            Line2D([], [], color=c, marker="o", markersize=3, linewidth=0.8, label=rf"SGD, $\eta={lr}$")
            for lr, _, c in RUNS
        ),
        Line2D([], [], color="#555555", linestyle=":", linewidth=1, label="radius at its end"),
        Line2D([], [], color=GREY, linewidth=4, label=r"theory: $|w_0|^2+\sum\eta^2|g|^2$"),
    ]
    legend_below(figure, handles, 6)
    return figure


def ring(tiny: Tiny) -> Array:
    """Points of the unit sphere around the direction of most loss, (MERIDIANS, 3)."""
    even = spread(4000)
    top = even[tiny.losses(even).argmax()]
    across = np.linalg.svd(top[None])[2][1:]  # two directions at right angles to it
    angle = 2 * np.pi * np.arange(MERIDIANS) / MERIDIANS
    return np.cos(RING) * top + np.sin(RING) * np.stack([np.cos(angle), np.sin(angle)], axis=1) @ across


def spread(points: int) -> Array:
    """Points spread evenly over the unit sphere, along Fibonacci's spiral."""
    height = 1 - (2 * np.arange(points) + 1) / points
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(points)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def _towards_camera() -> Array:
    elevation, azimuth = np.deg2rad(CAMERA)
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])


def outline() -> Array:
    """The unit sphere's as the camera sees it, (points, 3)."""
    angle = np.linspace(0, 2 * np.pi, 361)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) @ np.linalg.svd(_towards_camera()[None])[2][1:]


def _visible(points: Array) -> NDArray[np.bool_]:
    """Which points the unit sphere does not hide from a camera far away."""
    ahead = points @ _towards_camera()
    return (ahead > 0) | (np.linalg.norm(points - ahead[:, None] * _towards_camera(), axis=1) > 1)


def _sphere(axes: Axes3D, tiny: Tiny, reach: float) -> None:
    polar, turn = np.meshgrid(np.linspace(0, np.pi, 91), np.linspace(0, 2 * np.pi, 181), indexing="ij")
    at = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], axis=-1)
    loss = tiny.losses(at.reshape(-1, 3)).reshape(polar.shape)
    rank = np.searchsorted(np.sort(loss.ravel()), loss) / loss.size
    axes.plot_surface(*np.moveaxis(at, -1, 0), facecolors=VALLEY(rank), shade=False, rstride=1, cstride=1, zorder=1,
                      linewidth=0, antialiased=False, alpha=1)  # fmt: skip
    _line(axes, 1.001 * outline(), "#999999", 0.8)
    for edge in (at[::15], np.moveaxis(at, 1, 0)[:-1:15]):
        for line in edge:
            _line(axes, 1.001 * line, "#BBBBBB", 0.5)
    axes.view_init(*CAMERA)
    axes.set_proj_type("ortho")
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach), box_aspect=(1, 1, 1))
    axes.set_box_aspect((1, 1, 1), zoom=1.5)
    axes.set_axis_off()


def _line(axes: Axes3D, path: Array, colour: str, width: float, **marks: Any) -> None:
    """What is in front of the sphere; NaN cuts the rest out."""
    shown = np.where(_visible(path)[:, None], path, np.nan)
    axes.plot(*shown.T, color=colour, linewidth=width, zorder=3, **marks)


def _arrows(axes: Axes3D, tiny: Tiny) -> None:
    at = spread(ARROWS)
    at = at[at @ _towards_camera() > 0.15]
    g = -tiny.gradients(at)
    length = np.linalg.norm(g, axis=1)
    g *= (0.17 * np.tanh(length / np.median(length)) / length)[:, None]
    axes.quiver(*(1.005 * at).T, *g.T, color="#555555", linewidth=0.8, arrow_length_ratio=0.4, zorder=2)
