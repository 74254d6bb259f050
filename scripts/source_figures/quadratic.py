"""Gradient descent on a quadratic against its continuous models, which all have closed forms."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.linalg import expm

from source_figures.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    legend_below,
    letters,
    new_figure,
    styled,
)

Array = NDArray[np.float64]
ANGLE = np.deg2rad(25)
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
HESSIAN = TURN @ np.diag([0.25, 1.6]) @ TURN.T
START = np.array([-2.2, 1.1])
CASES = ((0.4, 0.0, 40), (0.1, 0.9, 60))  # learning rate, momentum, steps
VIEWS = (((-2.35, 0.35), (-0.75, 1.25)), ((-2.5, 1.5), (-1.85, 1.25)))
MODELS = {
    "gradient flow": (GREY, ":", 2.2),
    "modified loss": (ORANGE, (0, (1, 1, 4, 1)), 1.8),
    "modified flow": (BLACK, (0, (4, 2)), 1.4),
}


def descent(lr: float, momentum: float, steps: int) -> Array:
    """Iterates of SGD, shape (steps + 1, 2)."""
    theta, buffer, path = START, np.zeros(2), [START]
    for _ in range(steps):
        buffer = momentum * buffer + HESSIAN @ theta
        theta = theta - lr * buffer
        path.append(theta)
    return np.array(path)


def model(name: str, lr: float, momentum: float, times: Array) -> Array:
    """A continuous model at given times, shape (times, 2).

    gradient flow (1−β)θ' = −Hθ; modified loss (β = 0) θ' = −(H + ηH²/2)θ; modified flow
    ½η(1+β)θ'' + (1−β)θ' = −Hθ from θ'(0) = −Hθ(0)/(1+β), where SGD's empty buffer puts it.
    """
    if name == "modified flow":
        inertia = 0.5 * lr * (1 + momentum)
        system = np.block([[np.zeros((2, 2)), np.eye(2)], [-HESSIAN / inertia, -(1 - momentum) / inertia * np.eye(2)]])
        state = np.concatenate([START, -HESSIAN @ START / (1 + momentum)])
        return np.array([(expm(system * t) @ state)[:2] for t in times])
    curvature = HESSIAN + (0.5 * lr * HESSIAN @ HESSIAN if name == "modified loss" else 0)
    return np.array([expm(-curvature * t / (1 - momentum)) @ START for t in times])


@styled
def draw() -> Figure:
    """Trajectories without and with momentum, and how the errors shrink with the learning rate."""
    figure = new_figure(11.5, 4.2)
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    for panel, case, view in zip(axes[:2], CASES, VIEWS, strict=True):
        _trajectories(panel, view, *case)
    _orders(axes[2])
    letters(axes, [rf"$\eta={lr:g}$, $\beta={beta:g}$" for lr, beta, _ in CASES] + ["error at a fixed time"])
    axes[0].set_ylabel(r"$\theta_2$")
    handles = [Line2D([], [], color=BLUE, marker="o", markersize=4, linewidth=0.8, label="SGD")]
    handles += [Line2D([], [], color=c, linestyle=s, linewidth=w, label=n) for n, (c, s, w) in MODELS.items()]
    handles += [
        Line2D([], [], color="#444444", marker="o", linestyle="", label=r"(c) $\beta=0$"),
        Line2D([], [], color="#444444", marker="s", markerfacecolor="none", linestyle="", label=r"(c) $\beta=0.9$"),
    ]
    legend_below(figure, handles, 6)
    return figure


def _trajectories(axes: Axes, view: tuple[tuple[float, float], ...], lr: float, momentum: float, steps: int) -> None:
    path = descent(lr, momentum, steps)
    x, y = np.meshgrid(np.linspace(*view[0], 200), np.linspace(*view[1], 200))
    level = 0.5 * np.einsum("ixy,ij,jxy->xy", np.stack([x, y]), HESSIAN, np.stack([x, y]))
    axes.contour(x, y, level, levels=np.geomspace(0.02, 4, 9).tolist(), colors="#DDDDDD", linewidths=0.8, zorder=0)
    axes.plot(*path.T, "o-", color=BLUE, markersize=4, linewidth=0.6, alpha=0.85)
    times = np.linspace(0, lr * steps, 600)
    for name, (colour, dashes, width) in MODELS.items():
        if name != "modified loss" or momentum == 0:
            axes.plot(*model(name, lr, momentum, times).T, color=colour, linestyle=dashes, linewidth=width, zorder=3)
    axes.set(xlim=view[0], ylim=view[1], xlabel=r"$\theta_1$")
    axes.grid(visible=False)


def _orders(axes: Axes) -> None:
    """|model − SGD| at t = 1 over |θ_0|."""
    rates = 2.0 ** -np.arange(4, 13)
    for momentum, marker in ((0.0, "o"), (0.9, "s")):
        for name, (colour, dashes, _) in MODELS.items():
            if name == "modified loss" and momentum:
                continue
            errors = [
                np.linalg.norm(model(name, lr, momentum, np.array([1.0]))[0] - descent(lr, momentum, round(1 / lr))[-1])
                / np.linalg.norm(START)
                for lr in rates
            ]
            fill = colour if momentum == 0 else "none"
            axes.loglog(
                rates, errors, color=colour, linestyle=dashes, marker=marker, markersize=4.5, markerfacecolor=fill
            )
    for ends, at, order, text in (
        (rates[[-1, -4]], 8e-3, 1, r"$\propto\eta$"),
        (rates[[3, 0]], 8e-8, 2, r"$\propto\eta^2$"),
    ):
        axes.loglog(ends, at * (ends / ends[0]) ** order, color="#555555", linewidth=0.8)
        middle = np.sqrt(ends[0] * ends[1])
        axes.annotate(text, (middle, at * (middle / ends[0]) ** order), textcoords="offset points", xytext=(4, -12),
                      color="#555555")  # fmt: skip
    axes.set(xlabel=r"learning rate $\eta$", ylabel=r"$|\theta-\theta_\mathrm{SGD}|\,/\,|\theta_0|$ at $t=1$")
