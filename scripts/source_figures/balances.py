"""Time and data symmetry: the balance of the loss over steps, and the first layer's angular momentum."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from neuralmech.balance import LossBalance, angular_momentum, loss_balance, orbit, rotations
from neuralmech.data import in_memory
from neuralmech.losses import loss_of
from neuralmech.training.setup import prepare
from source_figures.runs import Runs
from source_figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, legend_below, letters, new_figure, styled

SAMPLES, DURATION, MOMENTUM = 128, 4.0, 0.5
RATES = 2.0 ** -np.arange(1, 9)
KINKS: dict[str, Any] = {"gelu": "-", "relu": ":"}  # a smooth activation, and one with kinks
FORMS = {
    "first": (GREY, "o", r"(a, b) $-\eta\langle g_k,u_k\rangle$"),
    "second": (ORANGE, "s", r"(a, b) $-\eta\langle g_k,u_k\rangle+\frac{1}{2}\eta^2u_k^THu_k$"),
    "trapezoid": (BLACK, "^", r"(a, b) $-\frac{1}{2}\eta\langle g_k+g_{k+1},u_k\rangle$"),
}
ACTIVATIONS = {"ReLU": (nn.ReLU, BLUE, "o"), "tanh": (nn.Tanh, GREEN, "s"), "softplus": (nn.Softplus, PINK, "^")}
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


@styled
def draw(runs: Runs) -> Figure:
    """Loss balance of full-batch runs on digits, and angular momentum against the number of rotations."""
    figure = new_figure(11.5, 4.5)
    axes = figure.subplots(1, 3)
    _time(axes[:2], runs)
    _data(axes[2])
    letters(axes, ["loss balance along a run", "its error", "angular momentum"])
    handles = [Line2D([], [], color=BLUE, linewidth=4, alpha=0.5, label="(a) measured, GELU net")]
    handles += [
        Line2D([], [], color="#444444", linestyle=style, label=f"(b) {name} net")
        for name, style in zip(("GELU", "ReLU"), KINKS.values(), strict=True)
    ]
    handles += [Line2D([], [], color=c, marker=m, markersize=4, label=label) for c, m, label in FORMS.values()]
    handles += [
        Line2D([], [], color=c, marker=m, markersize=4, label=f"(c) {name}") for name, (_, c, m) in ACTIVATIONS.items()
    ]
    legend_below(figure, handles, 3)
    return figure


def full_batch(runs: Runs, activation: str, lr: float) -> list[LossBalance]:
    """Balance of every step of full-batch descent with momentum, some digits, a small MLP, over a fixed time."""
    setup = prepare(runs.config(model={"name": "mlp", "width": 32, "depth": 2, "activation": activation}))
    model = setup.model.double()
    part = in_memory(setup.data.train)
    assert part is not None
    x, y = part.x[:SAMPLES].double(), part.y[:SAMPLES]
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM)
    balances = []
    for _ in range(round(DURATION / lr)):
        before = copy.deepcopy(model)
        optimizer.zero_grad()
        loss_of(model(x), y).backward()
        optimizer.step()
        balances.append(loss_balance(before, x, y, model.state_dict()))
    return balances


def _time(axes: np.ndarray, runs: Runs) -> None:
    for activation, style in KINKS.items():
        found = [full_batch(runs, activation, float(lr)) for lr in RATES]
        for form, (colour, marker, _) in FORMS.items():
            errors = [sum(abs(getattr(b, form) - b.measured) for b in balances) for balances in found]
            axes[1].loglog(RATES, errors, style, color=colour, marker=marker, markersize=4, linewidth=1.2)
        if activation == "gelu":
            _one_run(axes[0], found[0], RATES[0])
    axes[0].set(xlabel=r"time $t=\eta k$", ylabel=r"$L(\theta_k)-L(\theta_0)$")
    axes[1].set(xlabel=r"learning rate $\eta$", ylabel=r"$\sum_k\,|\mathrm{predicted}-\mathrm{measured}|$")
    for order, at in ((1, 0.05), (2, 8e-7)):
        ends = RATES[[-3, -1]]
        axes[1].loglog(ends, at * (ends / ends[1]) ** order, color="#555555", linewidth=0.8)
        text = rf"$\propto\eta^{order}$" if order > 1 else r"$\propto\eta$"
        axes[1].annotate(text, (ends[0], at * (ends[0] / ends[1]) ** order), color="#555555",
                         textcoords="offset points", xytext=(4, -3))  # fmt: skip


def _one_run(axes: Axes, balances: list[LossBalance], lr: float) -> None:
    time = lr * np.arange(1, len(balances) + 1)
    axes.plot(time, np.cumsum([b.measured for b in balances]), color=BLUE, linewidth=4, alpha=0.5)
    for form, (colour, marker, _) in FORMS.items():
        predicted = np.cumsum([getattr(b, form) for b in balances])
        axes.plot(time, predicted, color=colour, marker=marker, markersize=4, linewidth=0.9)


def _data(axes: Axes) -> None:
    """RMS over nets of ⟨∇_W L, WA⟩ / (|∇_W L| |WA|) with C_n-augmented planar data."""
    for activation, colour, marker in ACTIVATIONS.values():
        sizes = [np.sqrt(np.mean([_momentum(activation, n, seed) ** 2 for seed in range(10)])) for n in COUNTS]
        axes.loglog(COUNTS, sizes, color=colour, marker=marker, markersize=4, linewidth=1.2)
    axes.set(xlabel=r"rotations $n$ of the augmentation", ylabel=r"$|\langle\nabla_WL,WA\rangle|\,/\,|\nabla_WL||WA|$")


def _momentum(activation: type[nn.Module], count: int, seed: int) -> float:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), activation(), nn.Linear(16, 3)).double()
    x, y = torch.randn(5, 2, dtype=torch.float64), torch.randint(3, (5,))
    augmented: tuple[Tensor, Tensor] = orbit(x, y, rotations(TURN, count))
    found, size = angular_momentum(model, "0.weight", *augmented, TURN)
    return found / size
