"""Gradient and Hessian constraints of a real net over training."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor, nn

from neuralmech.data import Batches
from neuralmech.losses import loss_of
from neuralmech.symmetry.group import Symmetries
from neuralmech.training.flat import FlatParameters
from neuralmech.training.setup import prepare
from source_figures.runs import Runs
from source_figures.style import FAMILY_COLOURS, GREY, legend_below, letters, new_figure, styled

SAMPLE = 6  # charges per family
POINTS = 24  # times during training
CONDITIONS = {torch.float64: "-", torch.float32: "--"}


@dataclass(frozen=True)
class Violation:
    """Worst violations over some directions: gradient and Hessian constraint."""

    gradient: float
    hessian: float


@styled
def draw(runs: Runs) -> Figure:
    """|⟨g, ∂_αψ⟩| and |H∂_αψ + (∂_θ∂_αψ)g| along symmetries and along random directions."""
    options = {"weight_decay": 1e-3}
    steps = np.unique(np.geomspace(1, len(runs.parameters(**options)), POINTS).astype(int))
    found = _measure(runs, options, steps)
    figure = new_figure(10, 4.2)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for (family, dtype), violations in found.items():
        colour = FAMILY_COLOURS.get(family, GREY)
        for panel, form in zip(axes, ("gradient", "hessian"), strict=True):
            values = [getattr(v, form) for v in violations]
            panel.loglog(steps, values, CONDITIONS[dtype], color=colour, linewidth=1.8)
    letters(
        axes,
        [
            r"gradient: $|\langle g,\partial_\alpha\psi\rangle|\,/\,|g||\partial_\alpha\psi|$",
            r"Hessian: $|H\partial_\alpha\psi+(\partial_\theta\partial_\alpha\psi)g|$, relative",
        ],
    )
    for panel in axes:
        panel.set_xlabel("training step")
    axes[0].set(ylabel="violation of the constraint", ylim=(1e-19, 10))
    handles = [Line2D([], [], color=c, linewidth=2, label=f) for f, c in FAMILY_COLOURS.items()]
    handles += [
        Line2D([], [], color=GREY, linewidth=2, label="random directions in the same parameters"),
        Line2D([], [], color="#444444", linestyle="-", label="float64"),
        Line2D([], [], color="#444444", linestyle="--", label="float32"),
    ]
    legend_below(figure, handles, 6)
    return figure


def _measure(runs: Runs, options: dict[str, float], steps: NDArray) -> dict[tuple[str, torch.dtype], list[Violation]]:
    """Family (or "random") and precision → violations at some steps, on the step's own batch."""
    config = runs.config(**options)
    setup = prepare(config)
    flat = FlatParameters(setup.model)
    batches = Batches(setup.data, config.data.batch_size, config.seed)
    setup.model.norm.eps = 1e-24  # type: ignore[assignment]  # what breaks the scale symmetry by itself
    directions = _directions(setup.symmetries)
    found: dict[tuple[str, torch.dtype], list[Violation]] = {}
    for step in steps.tolist():
        with torch.no_grad():
            flat.theta.copy_(runs.parameters(**options)[step - 1])
        for dtype in CONDITIONS:
            model = copy.deepcopy(setup.model).to(dtype)
            x, y = batches(step)
            for family, violation in _violations(model, x.to(dtype), y, directions).items():
                found.setdefault((family, dtype), []).append(violation)
    return found


def _directions(symmetries: Symmetries) -> dict[str, tuple[bool, Tensor]]:
    """Family → (is a translation, sampled generators (charges, parameters))."""
    random = np.random.default_rng(0)
    out = {}
    for name, matrix in symmetries.generators().items():
        rows = random.choice(matrix.shape[0], min(SAMPLE, matrix.shape[0]), replace=False)
        out[name] = (symmetries.families[name].is_translation, torch.as_tensor(matrix[rows].toarray()))
    return out


def _violations(
    model: nn.Module, x: Tensor, y: Tensor, directions: dict[str, tuple[bool, Tensor]]
) -> dict[str, Violation]:
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss_of(model(x), y), parameters, create_graph=True)
    theta = torch.cat([p.detach().reshape(-1) for p in parameters])
    slope = torch.cat([g.reshape(-1) for g in gradients])
    g = slope.detach()
    generator = torch.Generator().manual_seed(0)

    def hessian(v: Tensor) -> Tensor:
        found = torch.autograd.grad(slope, parameters, v, retain_graph=True)
        return torch.cat([h.reshape(-1) for h in found])

    stiffness = _norm(hessian(torch.randn(theta.shape, generator=generator).to(theta))) / len(theta) ** 0.5
    out: dict[str, list[tuple[float, float]]] = {"random": []}
    for family, (translation, rows) in directions.items():
        for m in rows.to(theta):
            along = m if translation else m * theta
            twist = torch.zeros_like(theta) if translation else m * g
            size = stiffness * _norm(along) + _norm(twist)
            cosine = abs(float(along.double() @ g.double())) / (_norm(along) * _norm(g))
            out.setdefault(family, []).append((cosine, _norm(hessian(along) + twist) / size))
            noise = torch.randn(theta.shape, generator=generator).to(theta) * (m != 0)
            cosine = abs(float(noise @ g)) / (_norm(noise) * _norm(g))
            out["random"].append((cosine, _norm(hessian(noise)) / (stiffness * _norm(noise))))
    reduced = {family: np.array(pairs) for family, pairs in out.items()}
    # The worst of the symmetries, the typical random direction.
    return {f: Violation(*(np.median if f == "random" else np.max)(v, axis=0)) for f, v in reduced.items()}


def _norm(v: Tensor) -> float:
    return float(v.double().norm())
