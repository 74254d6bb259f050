"""Symmetric losses in two dimensions: vector fields, and what gradient flow conserves on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from source_figures.style import BLACK, BLUE, GREY, ORANGE, legend_below, new_figure, styled

Array = NDArray[np.float64]
REACH = 2.0  # half the width of a panel
DURATION = 6.0
RATE, STEPS = 0.25, 24  # of gradient descent
CHARGE_MAP = LinearSegmentedColormap.from_list("charge", ["#E8B08A", "#FFFFFF", "#8FC1E3"])


@dataclass(frozen=True)
class Plane:
    """A loss of θ = (x, y), its symmetry's generator and the charge that gradient flow conserves."""

    name: str
    formula: str
    conserved: str
    loss: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], tuple[Array, Array]]
    generator: Callable[[Array, Array], tuple[Array, Array]]
    charge: Callable[[Array, Array], Array]
    starts: tuple[tuple[float, float], ...]


def _translation(x: Array, y: Array) -> tuple[Array, Array]:
    slope = (x - y - 0.5) * np.ones_like(x)
    return slope, -slope


def _scale(x: Array, y: Array) -> tuple[Array, Array]:
    """L = −cos(φ − φ₀): dL/dφ = sin(φ − φ₀), ∇φ = (−y, x)/r²."""
    twist = np.sin(np.arctan2(y, x) - SCALE_MINIMUM) / np.maximum(x**2 + y**2, 1e-12)
    return -y * twist, x * twist


def _rescale(x: Array, y: Array) -> tuple[Array, Array]:
    error = x * y - 1
    return error * y, error * x


SCALE_MINIMUM = np.pi / 3
PLANES = (
    Plane(
        "translation",
        r"$\mathcal{L}(\theta_1-\theta_2)$",
        r"$\theta_1+\theta_2$, a plane",
        lambda x, y: (x - y - 0.5) ** 2 / 2,
        _translation,
        lambda x, y: (np.ones_like(x), np.ones_like(y)),
        lambda x, y: x + y,
        ((-1.75, 0.55), (-0.9, 1.7), (0.2, 1.8), (0.1, -1.8), (1.75, -0.55), (-1.3, -0.1), (1.3, -1.6)),
    ),
    Plane(
        "scale",
        r"$\mathcal{L}(\theta/|\theta|)$",
        r"$|\theta|^2$, a sphere",
        lambda x, y: -np.cos(np.arctan2(y, x) - SCALE_MINIMUM),
        _scale,
        lambda x, y: (x, y),
        lambda x, y: x**2 + y**2,
        ((-0.5, -0.6), (0.75, -0.85), (-1.15, -1.0), (1.7, -0.9), (-1.6, 0.3)),
    ),
    Plane(
        "rescale",
        r"$\mathcal{L}(\theta_1\theta_2)$",
        r"$\theta_1^2-\theta_2^2$, a hyperbola",
        lambda x, y: (x * y - 1) ** 2 / 2,
        _rescale,
        lambda x, y: (x, -y),
        lambda x, y: x**2 - y**2,
        ((-1.0, 0.75), (-0.4, 1.3), (1.45, -0.6), (0.25, -0.9), (1.85, 1.35), (-1.2, -1.95), (0.4, 0.1)),
    ),
)


@styled
def draw() -> Figure:
    """Generators and gradient above; conserved charge, gradient flow and gradient descent below."""
    figure = new_figure(10, 7.6)
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    for column, plane in enumerate(PLANES):
        _fields(axes[0, column], plane)
        _flows(axes[1, column], plane)
        axes[0, column].set_title(f"{plane.name} symmetry, {plane.formula}")
        axes[1, column].set_title(f"conserved: {plane.conserved}")
        axes[1, column].set_xlabel(r"$\theta_1$")
    for panel in axes.flat:
        panel.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xticks=range(-2, 3), yticks=range(-2, 3))
        panel.grid(visible=False)
    for row in axes:
        row[0].set_ylabel(r"$\theta_2$")
    handles = [
        Line2D([], [], color=GREY, linewidth=1, label="level sets of the loss"),
        Line2D([], [], color=ORANGE, marker=">", linestyle="-", label=r"generator $\partial_\alpha\psi$"),
        Line2D([], [], color=BLUE, marker=">", linestyle="-", label=r"gradient flow $\dot\theta=-g$"),
        Line2D([], [], color="#888888", linewidth=1, linestyle="--", label="level sets of the charge"),
        Line2D([], [], color=BLACK, marker="o", markersize=3, linewidth=0.8, label="gradient descent, finite step"),
    ]
    legend_below(figure, handles, 5)
    return figure


def _grid(points: int) -> tuple[Array, Array]:
    line = np.linspace(-REACH, REACH, points)
    x, y = np.meshgrid(line, line)
    return x, y


def _fields(axes: Axes, plane: Plane) -> None:
    x, y = _grid(401)
    level = plane.loss(x, y)
    axes.contour(
        x,
        y,
        level,
        levels=np.quantile(level, np.linspace(0.04, 0.96, 9)).tolist(),
        colors=GREY,
        linewidths=0.7,
        linestyles="solid",
    )
    line = np.linspace(-1.75, 1.75, 8)
    at = np.meshgrid(line, line)
    for field, colour in ((plane.generator, ORANGE), (lambda a, b: tuple(-g for g in plane.gradient(a, b)), BLUE)):
        u, v = field(*at)
        length = np.hypot(u, v)
        shown = 0.32 * np.tanh(length / 0.8) / np.maximum(length, 1e-12)  # long arrows saturate
        axes.quiver(
            *at, u * shown, v * shown, color=colour, angles="xy", scale_units="xy", scale=1, width=0.0065, zorder=3
        )


def _flows(axes: Axes, plane: Plane) -> None:
    x, y = _grid(401)
    charge = plane.charge(x, y)
    top = np.abs(charge).max()
    axes.imshow(
        charge, extent=(-REACH, REACH, -REACH, REACH), origin="lower", cmap=CHARGE_MAP, vmin=-top, vmax=top, zorder=0
    )
    values = sorted({round(float(plane.charge(np.array(a), np.array(b))), 6) for a, b in plane.starts})
    lines = axes.contour(x, y, charge, levels=values, colors="#888888", linewidths=0.9)
    lines.set_linestyle("--")
    for start in plane.starts:
        path = solve_ivp(lambda _, p: -np.array(plane.gradient(*p)), (0, DURATION), start, rtol=1e-9, max_step=0.02).y
        axes.plot(*path, color=BLUE, linewidth=2.2, zorder=3)
        travelled = np.cumsum(np.hypot(*np.diff(path, axis=1)))
        middle = int(np.searchsorted(travelled, 0.55 * travelled[-1]))
        axes.annotate(
            "", path[:, middle + 1], path[:, middle], zorder=4,
            arrowprops={"arrowstyle": "-|>", "color": BLUE, "mutation_scale": 13},
        )  # fmt: skip
        axes.plot(*start, "o", color=BLUE, markersize=4, zorder=4)
    axes.plot(*_descent(plane), "o-", color=BLACK, markersize=2.6, linewidth=0.7, zorder=5)


def _descent(plane: Plane) -> Array:
    """Gradient descent from the first start: the finite step leaves the level set, except for a plane."""
    theta = np.array(plane.starts[0])
    path = [theta]
    for _ in range(STEPS):
        theta = theta - RATE * np.array(plane.gradient(*theta))
        path.append(theta)
    return np.array(path).T
