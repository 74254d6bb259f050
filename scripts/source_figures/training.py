"""Figures of recorded runs: charges in colour, theory dashed in black."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from neuralmech.compare.measure.errors import compare_family
from neuralmech.record import Record
from neuralmech.training.flat import FlatParameters
from neuralmech.training.setup import prepare
from source_figures.runs import LR, Runs
from source_figures.style import (
    BLACK,
    BLUE,
    COLOURS,
    DASHED,
    FAMILY_COLOURS,
    GREEN,
    ORANGE,
    legend_below,
    letters,
    new_figure,
    styled,
)

Array = NDArray[np.float64]
DECAYS = (0.0, 1e-3, 5e-3)
SITES = {"translation": "classifier.weight", "scale": "first", "rescale": "hidden"}
FORMS = {
    "translation": r"column sums $\langle\theta,1\rangle$",
    "scale": r"$|\theta_A|^2$",
    "rescale": r"$|\theta_\mathrm{in}|^2-|\theta_\mathrm{out}|^2$",
}
FORMS_OF_NEURONS = (FORMS["translation"], FORMS["rescale"])
CLASSES, NEURONS = 10, 32  # of the classifier's weight
OSCILLATOR = 6.4e-4  # ηλ: critically damped at β = 0.95
MOMENTA = (0.8, 0.95, 0.98, 0.99)


def _times(values: float) -> str:
    """Write a number such as 1e-3 as 10^{-3}."""
    if values == 0:
        return "0"
    exponent = int(np.floor(np.log10(values)))
    factor = values / 10**exponent
    return ("" if factor == 1 else rf"{factor:g}\cdot ") + rf"10^{{{exponent}}}"


def _columns(record: Record, family: str) -> NDArray[np.int64]:
    sites = record.charges(family).index["site"]
    return np.flatnonzero(sites.str.contains(SITES[family], regex=False).to_numpy())


@styled
def noisy_and_smooth(runs: Runs) -> Figure:
    """Single parameters of the classifier beside the charges of the neurons that it reads."""
    options = {"batch_size": 4, "steps": 4000, "lr": 0.02, "weight_decay": 5e-3}
    theta = np.stack([p.numpy() for p in runs.parameters(**options)])
    start = FlatParameters(prepare(runs.config(**options)).model).layout.offsets["classifier.weight"]
    weights = theta[:, start : start + CLASSES * NEURONS].reshape(-1, CLASSES, NEURONS)
    random = np.random.default_rng(0)
    figure = new_figure(11, 3.8)
    axes = figure.subplots(1, 3)
    for neuron in range(NEURONS):
        colour = COLOURS[neuron % len(COLOURS)]
        single = weights[:, random.integers(CLASSES), neuron]
        axes[0].plot(np.arange(1, len(theta) + 1), single, color=colour, linewidth=0.6, alpha=0.9)
    with runs.record(**options) as record:
        for panel, family in zip(axes[1:], ("translation", "rescale"), strict=True):
            values = record.charges(family).value[:][:, _columns(record, family)]
            for i, column in enumerate(values.T):
                panel.plot(record.steps()["step"], column, color=COLOURS[i % len(COLOURS)], linewidth=1.0)
    letters(axes, ["parameters", "translation charges", "rescale charges"])
    for panel, name in zip(axes, (r"classifier weight $\theta_j$", *FORMS_OF_NEURONS), strict=True):
        panel.set(xlabel="training step", ylabel=name)
    handles = [Line2D([], [], color=BLUE, label="one line per hidden neuron, of the same colour in every panel")]
    legend_below(figure, handles)
    return figure


@styled
def three_families(runs: Runs) -> Figure:
    """Rows: families; columns: weight decay; a sample of charges against the first-order flow."""
    figure = new_figure(10, 7.6)
    axes = figure.subplots(3, 3, sharex=True, sharey="row")
    for column, decay in enumerate(DECAYS):
        with runs.record(weight_decay=decay) as record:
            for row, family in enumerate(FORMS):
                _charges(axes[row, column], record, family, "first_order_flow", FAMILY_COLOURS[family], LR)
        axes[0, column].set_title(rf"$\lambda={_times(decay)}$")
        axes[2, column].set_xlabel(r"time $t=\eta k$")
    for row, family in enumerate(FORMS):
        axes[row, 0].set_ylabel(f"{family}\n{FORMS[family]}")
    figure.align_ylabels(axes[:, 0])
    handles = [Line2D([], [], color=c, linewidth=2.2, label=f"{f}, measured") for f, c in FAMILY_COLOURS.items()]
    handles.append(Line2D([], [], color=BLACK, linestyle=DASHED, label="theory: first-order flow"))
    legend_below(figure, handles)
    return figure


def _charges(axes: Axes, record: Record, family: str, law: str, colour: str, every: float = 1.0) -> None:
    """Draw some charges of one site, the same ones in every run, and a law over them."""
    curves = compare_family(record, family, lines=len(record.charges(family))).curves
    allowed = _columns(record, family)
    allowed = allowed[np.argsort(curves.measured[0, allowed])]  # by value at the start, the same for every run
    for charge in allowed[np.unique(np.linspace(0, len(allowed) - 1, 9).astype(int))]:
        theory = curves.theory[law][:, np.flatnonzero(curves.chosen == charge)[0]]
        axes.plot(curves.step * every, curves.measured[:, charge], color=colour, linewidth=2.4, alpha=0.6)
        axes.plot(curves.step * every, theory, color=BLACK, linestyle=DASHED, linewidth=0.9)


@styled
def oscillations(runs: Runs) -> Figure:
    """The classifier's column sums, whose oscillator knows β, η and λ only."""
    figure = new_figure(11, 3.6)
    axes = figure.subplots(1, len(MOMENTA), sharey=True, sharex=True)
    names = []
    for panel, beta in zip(axes, MOMENTA, strict=True):
        lr = 0.02
        with runs.record(lr=lr, weight_decay=OSCILLATOR / lr, momentum=beta, steps=800) as record:
            _charges(panel, record, "translation", "modified_flow", BLUE)
        ratio = (1 - beta) / np.sqrt(2 * OSCILLATOR * (1 + beta))
        names.append(rf"$\beta={beta}$: {_damping(ratio)}")
        panel.set_xlabel("training step")
    letters(axes, names)
    axes[0].set_ylabel(FORMS["translation"])
    handles = [
        Line2D([], [], color=BLUE, linewidth=2.4, alpha=0.65, label="measured, one line per hidden neuron"),
        Line2D([], [], color=BLACK, linestyle=DASHED, label="theory: harmonic oscillator, from the start alone"),
    ]
    legend_below(figure, handles)
    return figure


def _damping(ratio: float) -> str:
    if abs(ratio - 1) < 0.02:
        return "critically damped"
    return "over-damped" if ratio > 1 else "under-damped"


@styled
def effective_learning_rate(runs: Runs) -> Figure:
    """η/|θ_A|² of normalised filters against η over the root of a discounted sum of squared gradients."""
    figure = new_figure(11.5, 3.8)
    axes = figure.subplots(1, 1 + len(DECAYS))
    shades = dict(zip(DECAYS, (BLUE, GREEN, ORANGE), strict=True))
    for panel, decay in zip(axes, DECAYS, strict=False):
        with runs.record(weight_decay=decay) as record:
            charges, step = record.charges("scale"), record.steps()["step"]
            q, g = charges.value[:], charges.drive_gradient[:]
        theory = rmsprop_form(q, g, LR, decay)
        for i in range(0, q.shape[1], 2):
            panel.plot(step, LR / q[:, i], color=shades[decay], linewidth=2.4, alpha=0.6)
            panel.plot(step, LR / np.sqrt(theory[:, i]), color=BLACK, linestyle=DASHED, linewidth=0.9)
        error = np.sqrt(np.mean((q / np.sqrt(theory) - 1) ** 2, axis=1))
        axes[-1].semilogy(step[1:], error[1:], color=shades[decay], linewidth=1.4)
    for panel in axes[1:-1]:
        panel.sharey(axes[0])
        panel.tick_params(labelleft=False)
    letters(axes, [rf"$\lambda={_times(d)}$" for d in DECAYS] + ["error of the RMSProp form"])
    for panel in axes:
        panel.set_xlabel("training step")
    axes[0].set_ylabel(r"effective learning rate $\eta\,/\,|\theta_A|^2$")
    axes[-1].set_ylabel("relative RMS over filters")
    handles = [Line2D([], [], color=c, linewidth=2.4, label=rf"$\lambda={_times(d)}$") for d, c in shades.items()]
    label = r"theory: $\eta\,/\sqrt{v}$, $\;\dot v=-4\lambda v+2\eta\,\hat G$"
    handles.append(Line2D([], [], color=BLACK, linestyle=DASHED, label=label))
    legend_below(figure, handles)
    return figure


def rmsprop_form(q: Array, g: Array, lr: float, decay: float) -> Array:
    """Q² by (Q²)' = −4λQ² + 2ηĜ with Ĝ = GQ: Q²_{k+1} = e^{−4ηλ} Q²_k + 2η² Ĝ_k, shape as `q`."""
    out = np.empty_like(q)
    out[0] = q[0] ** 2
    discount = np.exp(-4 * lr * decay)
    for k in range(len(q) - 1):
        out[k + 1] = discount * out[k] + 2 * lr**2 * g[k] * q[k]
    return out
