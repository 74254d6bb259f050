"""Layers of a homogeneous net cannot grow alone: |W_l|² − |W_m|² under gradient flow, and under descent."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from source_figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, legend_below, letters, new_figure, styled

Array = NDArray[np.float64]
SIZES = (3, 8, 8, 2)
TIME = 20.0
SHOWN = (0.1, 0.4)  # learning rates of the descents that are drawn
RATES = 0.4 / 2.0 ** np.arange(6)
LAYERS = ((BLUE, "$W_1$"), (ORANGE, "$W_2$"), (BLACK, "$W_3$"))
_RANDOM = np.random.default_rng(0)
X, Y = _RANDOM.normal(size=(24, SIZES[0])), _RANDOM.normal(size=(24, SIZES[-1]))
START = np.concatenate(
    [s * _RANDOM.normal(size=a * b) / np.sqrt(a) for s, a, b in zip((1.2, 0.5, 1.0), SIZES, SIZES[1:], strict=False)]
)


def layers(theta: Array) -> list[Array]:
    """The weights, shape (out, in) each."""
    cuts = np.cumsum([a * b for a, b in pairwise(SIZES)])[:-1]
    return [w.reshape(b, a) for w, a, b in zip(np.split(theta, cuts), SIZES, SIZES[1:], strict=False)]


def gradient(theta: Array) -> Array:
    """Of the mean squared error of W₃ relu(W₂ relu(W₁ x)), by hand."""
    inputs, weights = [X], layers(theta)
    for w in weights[:-1]:
        inputs.append(np.maximum(inputs[-1] @ w.T, 0))
    back, found = 2 * (inputs[-1] @ weights[-1].T - Y) / Y.size, []
    for w, x in zip(weights[::-1], inputs[::-1], strict=True):
        found.append((back.T @ x).ravel())
        back = (back @ w) * (x > 0)
    return np.concatenate(found[::-1])


def sizes(theta: Array) -> Array:
    """|W_l|² of each layer."""
    return np.array([np.sum(w**2) for w in layers(theta)])


def flow(step: float = 0.002) -> Array:
    """|W_l|² along gradient flow by the classical Runge–Kutta method, shape (steps + 1, layers).

    The flow slides along kinks of ReLU, where a solver that chooses its steps comes to a stop and one that does not
    chatters: of first order, whatever its own.
    """
    theta, found = START, [sizes(START)]
    for _ in range(round(TIME / step)):
        a = -gradient(theta)
        b = -gradient(theta + step / 2 * a)
        c = -gradient(theta + step / 2 * b)
        d = -gradient(theta + step * c)
        theta = theta + step / 6 * (a + 2 * b + 2 * c + d)
        found.append(sizes(theta))
    return np.array(found)


def descent(lr: float, time: float = TIME) -> tuple[Array, Array]:
    """|W_l|² of descent, and Σ η²|g_l|² up to each step: shape (steps + 1, layers) each."""
    theta, found, driven = START, [sizes(START)], [np.zeros(len(SIZES) - 1)]
    for _ in range(round(time / lr)):
        slope = gradient(theta)
        theta = theta - lr * slope
        found.append(sizes(theta))
        driven.append(driven[-1] + lr**2 * sizes(slope))
    return np.array(found), np.array(driven)


@styled
def draw() -> Figure:
    """Norms that grow together, their differences, and how far descent leaves them."""
    figure = new_figure(11.5, 3.9)
    axes = figure.subplots(1, 3)
    together = flow()
    times = np.linspace(0, TIME, len(together))
    for (colour, _), size in zip(LAYERS, together.T, strict=True):
        axes[0].plot(times, size, color=colour, linewidth=1.8)
    axes[1].plot(times, together[:, 0] - together[:, 1], color=GREY, linewidth=3)
    for lr, colour in zip(SHOWN, (GREEN, PINK), strict=True):
        found, driven = descent(lr)
        at = lr * np.arange(len(found))
        axes[1].plot(at, found[:, 0] - found[:, 1], color=colour, linewidth=2.2, alpha=0.7)
        predicted = found[0, 0] - found[0, 1] + driven[:, 0] - driven[:, 1]
        axes[1].plot(at, predicted, color=BLACK, linestyle=(0, (4, 3)), linewidth=1)
    _departure(axes[2])
    letters(axes, ["layers grow together", r"$|W_1|^2-|W_2|^2$", f"departure at $t={TIME:g}$"])
    axes[0].set_ylabel(r"$|W_l|^2$")
    for panel in axes[:2]:
        panel.set_xlabel("$t$")
    handles = [Line2D([], [], color=c, linewidth=1.8, label=f"(a) {name}") for c, name in LAYERS]
    handles.append(Line2D([], [], color=GREY, linewidth=3, label="gradient flow"))
    pairs = zip(SHOWN, (GREEN, PINK), strict=True)
    handles += [Line2D([], [], color=c, linewidth=2.2, alpha=0.7, label=rf"descent, $\eta={lr:g}$") for lr, c in pairs]
    handles.append(Line2D([], [], color=BLACK, linestyle=(0, (4, 3)), linewidth=1, label="by the drive $\\eta^2 G$"))
    legend_below(figure, handles, 7)
    return figure


def departures() -> Array:
    """|change of |W_1|² − |W_2|²| over the time, for each of the learning rates."""
    ends = [descent(lr)[0] for lr in RATES]
    return np.array([abs((e[-1, 0] - e[-1, 1]) - (e[0, 0] - e[0, 1])) for e in ends])


def _departure(axes: Axes) -> None:
    axes.loglog(RATES, departures(), marker="o", color=BLUE, linewidth=1.2)
    axes.loglog(RATES, departures()[-1] * RATES / RATES[-1], color=GREY, linestyle=":", label="order 1")
    axes.set_xticks(RATES[::2], [f"{lr:g}" for lr in RATES[::2]])
    axes.minorticks_off()
    axes.set_xlabel(r"learning rate $\eta$")
    axes.legend(fontsize=8)
