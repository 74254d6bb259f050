"""Claims against finite transformations: ψ(θ, α) leaves the loss as it is, at any θ, on any batch.

The gradient constraint alone does not see what a comparison or an index reads: h · (h > c) has the gradient of a gate.
"""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from neuralmech.symmetry.group import Symmetries
from oracle import LIMIT, NEARLY, UnclearError, loss_at

AMOUNT = 0.3  # α, where the largest entry of a generator is 1
CHANGED = 1e-8  # of a loss of about 1; a comparison that turns round changes it by some 1e-2
CLEARLY = 100  # times what rounding changes, at least, is a change
TRIES = 50  # batches for each that counts: behind a gate and a norm one in fifteen has a finite loss
EACH = 16  # charges of a family that are tried one by one; more are tried as random sums


def largest_change(found: Symmetries, model: nn.Module, inputs, loss: str = "cross_entropy", places: int = 6) -> float:
    """The most that a claimed transformation changes the loss of a model in float64, over random θ and batches.

    Raises
    ------
    UnclearError
        If hardly any batch counts: the loss has to be finite, and no noise.
    """
    names = {name: rows.toarray() for name, rows in found.generators().items() if rows.shape[0]}
    generator = torch.Generator().manual_seed(1)
    buffers = [b.clone() for b in model.buffers()]
    exact, rough = copy.deepcopy(model), copy.deepcopy(model).float()
    narrow_buffers = [b.clone() for b in rough.buffers()]

    def at(theta: torch.Tensor, x: torch.Tensor, place: int) -> float:
        return _loss(exact, buffers, theta, x, loss, place)

    worst, done = 0.0, 0
    for place in range(TRIES * places):
        theta = 0.7 * torch.randn(sum(p.numel() for p in model.parameters()), generator=generator, dtype=torch.float64)
        x = inputs(generator)
        before = at(theta, x, place)
        if not math.isfinite(before):
            continue
        narrow = x.float() if x.is_floating_point() else x
        if not abs(_loss(rough, narrow_buffers, theta, narrow, loss, place) - before) < LIMIT * (1 + abs(before)):
            continue  # rounding decides what is computed here
        for name, rows in names.items():
            for direction in _directions(rows, place):
                step = torch.from_numpy(direction / np.abs(direction).max())
                for alpha in (AMOUNT, -AMOUNT):
                    moved = theta + alpha * step if name == "translation" else theta * torch.exp(alpha * step)
                    change = abs(at(moved, x, place) - before) / (1 + abs(before))
                    if change > CHANGED and change < CLEARLY * max(_noise(at, p, x, place) for p in (theta, moved)):
                        continue  # rounding decides here: a norm of what is the same for all samples
                    worst = max(worst, change)
        done += 1
        if done == places:
            break
    if done < places // 2:
        raise UnclearError
    return worst


def _noise(at: Callable[[torch.Tensor, torch.Tensor, int], float], theta: torch.Tensor, x: torch.Tensor, place: int):
    """How much parameters that differ in the 13th digit change a loss."""
    generator = torch.Generator().manual_seed(place)
    near = (theta * (1 + NEARLY * torch.randn(theta.shape, generator=generator)) for _ in range(3))
    here = at(theta, x, place)
    return max(abs(at(t, x, place) - here) for t in near)


def _directions(rows: np.ndarray, seed: int) -> np.ndarray:
    """Each charge by itself and two random sums, or only as many sums if there are many charges."""
    rng = np.random.default_rng(seed)
    each = rows if len(rows) <= EACH else rows[:0]
    sums = rng.standard_normal((2 if len(each) else EACH, len(rows))) @ rows
    return np.concatenate([each, sums])


def _loss(model: nn.Module, buffers: list[torch.Tensor], theta: torch.Tensor, x: torch.Tensor, loss: str, seed: int):
    for buffer, value in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(value)
    with torch.no_grad():
        return loss_at(model, theta, x, loss, seed).item()
