"""Phase portraits of charges of a conv net: column sums on the flow of their oscillator, driven charges on theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from neuralmech.compare.measure.phase import phase_curve
from neuralmech.laws.oscillator import Oscillator, oscillator
from neuralmech.laws.system import Hyperparameters
from neuralmech.record import Record
from source_figures.runs import Runs
from source_figures.style import (
    BLACK,
    BLUE,
    FAMILY_COLOURS,
    GREY,
    legend_below,
    letters,
    new_figure,
    styled,
)

Array = NDArray[np.float64]
LR, DECAY, STEPS = 0.02, 0.032, 800  # the runs of the oscillations' figure
MOMENTA = {0.8: "over-damped", 0.95: "critically damped", 0.99: "under-damped"}
DRIVEN = {"scale": 0.98, "rescale": 0.98}  # family → β
DOT = {"linestyle": "", "marker": "o", "markeredgewidth": 0}
SHOWN = 7  # charges in a panel of column sums
DOTTED = (0, (1, 1.2))
EVERY = 4  # steps from dot to dot
TIMES = LR * np.linspace(0, STEPS, 8 * STEPS)


def closed_form(momentum: float, times: Array, *, translation: bool = True) -> tuple[Array, Array]:
    """c and c′ of ½η(1+β)c″ + (1−β)c′ + λc = 0 from c = 1 and an empty buffer, c′ = −λ/(1+β); Q with 2λ for λ."""
    found = _oscillator(momentum, translation=translation)
    gamma, omega = complex(found.gamma[0]), complex(found.omega[0])
    split = np.sqrt(gamma**2 - omega**2)
    kick = (gamma - (1 if translation else 2) * DECAY / (1 + momentum)) / split
    envelope, phase = np.exp(-gamma * times), split * times
    value = envelope * (np.cosh(phase) + kick * np.sinh(phase))
    slope = -gamma * value + split * envelope * (np.sinh(phase) + kick * np.cosh(phase))
    return value.real, slope.real


def _oscillator(momentum: float, *, translation: bool) -> Oscillator:
    return oscillator(Hyperparameters.steady(lr=LR, momentum=momentum, weight_decay=DECAY), translation=translation)


def column_sums(runs: Runs, momentum: float) -> tuple[Array, Array, Array]:
    """Of the classifier: at the start (sums), and value and velocity between steps (steps, sums) each."""
    with _record(runs, momentum) as record:
        charges = record.charges("translation")
        sums = charges.value[:][:, (charges.index["site"] == "classifier.weight").to_numpy()]
    return sums[0], (sums[1:] + sums[:-1]) / 2, np.diff(sums, axis=0) / LR


def _record(runs: Runs, momentum: float) -> Record:
    return runs.record(lr=LR, weight_decay=DECAY, momentum=momentum, steps=STEPS)


@styled
def draw(runs: Runs) -> Figure:
    """Above: column sums in three regimes; below: all of them as one, and two charges that are driven."""
    figure = new_figure(11.5, 7.4)
    axes = figure.subplots(2, 3)
    for panel, momentum in zip(axes[0], MOMENTA, strict=True):
        _sums(panel, runs, momentum)
    _over_their_starts(axes[1, 0], runs)
    for panel, (family, momentum) in zip(axes[1, 1:], DRIVEN.items(), strict=True):
        with _record(runs, momentum) as record:
            _driven(panel, record, family, momentum)
    names = [rf"$\beta={beta}$: {regime}" for beta, regime in MOMENTA.items()]
    names += [r"$\beta=0.99$: all 32 sums, over their starts"]
    names += [rf"$\beta={beta}$: a {family} charge" for family, beta in DRIVEN.items()]
    letters(axes.ravel(), names)
    handles = [Line2D([], [], color=c, **DOT, markersize=6, label=f"{f}, measured") for f, c in FAMILY_COLOURS.items()]
    handles += [
        Line2D([], [], color=BLACK, linewidth=1.1, label="theory"),
        Line2D([], [], color=GREY, linestyle=DOTTED, linewidth=1.4, label="without drive"),
        Line2D([], [], color=GREY, linewidth=0.8, marker=">", markersize=4, label="flow of the oscillator"),
    ]
    legend_below(figure, handles, 6)
    return figure


def _sums(axes: Axes, runs: Runs, momentum: float) -> None:
    start, value, velocity = column_sums(runs, momentum)
    chosen = np.argsort(start)[np.linspace(0, len(start) - 1, SHOWN).astype(int)]
    theory = [start[chosen] * one[:, None] for one in closed_form(momentum, TIMES)]
    _portrait(axes, value[:, chosen], velocity[:, chosen], theory, BLUE)
    _flow(axes, momentum)
    axes.set(xlabel=r"column sum $c$", ylabel=r"velocity $\dot c$")


def _portrait(axes: Axes, value: Array, velocity: Array, theory: Sequence[Array], colour: str) -> None:
    """Dots of what was measured between steps, rings where it begins, and theory over them."""
    axes.plot(value[::EVERY], velocity[::EVERY], color=colour, markersize=5, alpha=0.55, **DOT)
    axes.plot(value[0], velocity[0], linestyle="", marker="o", markersize=8, color=colour, markerfacecolor="none")
    axes.plot(*theory, color=BLACK, linewidth=1.0)


def _flow(axes: Axes, momentum: float) -> None:
    """Streamlines of (c, c′)′ = (c′, −2γc′ − ω²c) in the view as it is."""
    found = _oscillator(momentum, translation=True)
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    x, y = np.meshgrid(np.linspace(left, right, 80), np.linspace(low, high, 80))
    axes.streamplot(
        x, y, y, -2 * found.gamma[0] * y - found.omega[0] ** 2 * x,
        color="#CCCCCC", linewidth=0.7, arrowsize=0.8, density=0.9, zorder=0,
    )  # fmt: skip
    axes.set(xlim=(left, right), ylim=(low, high))
    axes.grid(visible=False)


def _over_their_starts(axes: Axes, runs: Runs) -> None:
    start, value, velocity = column_sums(runs, 0.99)
    axes.plot((value / start)[::EVERY], (velocity / start)[::EVERY], color=BLUE, markersize=5, alpha=0.05, **DOT)
    axes.plot(*closed_form(0.99, TIMES), color=BLACK, linewidth=1.0)
    _flow(axes, 0.99)
    axes.set(xlabel="$c/c_0$", ylabel=r"$\dot c/c_0$")


def _driven(axes: Axes, record: Record, family: str, momentum: float) -> None:
    """One charge whose oscillator is pushed by the recorded drive."""
    curve = phase_curve(record, family, lines=1)
    assert curve is not None
    theory = (curve.theory_value, curve.theory_velocity)
    _portrait(axes, curve.value, curve.velocity, theory, FAMILY_COLOURS[family])
    alone = closed_form(momentum, TIMES, translation=False)
    axes.plot(*(curve.value[0] * one for one in alone), color=GREY, linestyle=DOTTED, linewidth=1.4)
    axes.set(xlabel="charge $Q$", ylabel=r"velocity $\dot Q$")
