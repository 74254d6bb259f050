"""One optimiser step as the charges see it: a few flat vectors, and the signals as forms of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Signal → the two vectors of its form xᵀSy, and the one vector of its form ⟨a, x⟩ for a translation charge.
QUADRATIC = {
    "value": ("theta", "theta"),
    "drive_update": ("update", "update"),
    "drive_gradient": ("gradient", "gradient"),
    "residual": ("theta", "gradient"),
    "drive_buffer": ("update", "buffer"),
}
MAIN = ("value", "drive_update", "drive_gradient", "residual")  # always evaluated, the first of all
TRANSLATION = {
    "value": "theta",
    "drive_update": "update",
    "drive_gradient": "gradient",
    "residual": "gradient",
    "drive_buffer": "buffer",
}


class Step(NamedTuple):
    """Flat vectors of the step from θ_k to θ_{k+1}.

    Attributes
    ----------
    before, after
        θ_k and θ_{k+1} as stored.
    gradient
        Loss gradient at θ_k, without weight decay.
    rate
        1/η, or 0 for a step with η = 0, which does not move; a number, or a tensor that a CUDA graph reads.
    buffer
        Momentum buffer after the step.
    """

    before: Tensor
    after: Tensor
    gradient: Tensor
    rate: float | Tensor
    buffer: Tensor | None = None

    def vector(self, name: str, take: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        """A part of θ, u = (θ_k − θ_{k+1})/η, g or b, in float64."""
        if name == "update":
            return (take(self.before).double() - take(self.after)).mul_(self.rate)
        whole = {
            "theta": lambda: self.before,
            "gradient": lambda: self.gradient,
            "buffer": lambda: self.gradient if self.buffer is None else self.buffer,  # before the first step b = g
        }[name]()
        return take(whole).to(torch.float64)


class Motion(NamedTuple):
    """A step of SGD that is still to be taken: θ ← θ − ηb with b ← βb + g + λθ (without β: b = g + λθ).

    Attributes
    ----------
    gradients
        Of the parameters, in the layout's order; dense.
    buffer
        b, flat, changed in place; None without momentum.
    lr, momentum, weight_decay
        η, β, λ.
    """

    gradients: Sequence[Tensor]
    buffer: Tensor | None
    lr: float
    momentum: float
    weight_decay: float
