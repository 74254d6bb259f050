"""One optimiser step as charges see it: a few flat vectors, the signals as forms of them, and who evaluates these."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Take = Callable[[Tensor], Tensor]


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

    before: Float[Tensor, " parameters"]
    after: Float[Tensor, " parameters"]
    gradient: Float[Tensor, " parameters"]
    rate: float | Float64[Tensor, ""]
    buffer: Float[Tensor, " parameters"] | None = None

    def vector(self, name: str, take: Take = lambda x: x) -> Float64[Tensor, ...]:
        """A part of one of the `VECTORS`, in float64."""
        return VECTORS[name](self, take).to(torch.float64)


# What signals are forms of: by name, how a part of it is made of the same part of a step's vectors.
VECTORS: Mapping[str, Callable[[Step, Take], Tensor]] = {
    "theta": lambda step, take: take(step.before),
    "update": lambda step, take: (take(step.before).double() - take(step.after)).mul_(step.rate),
    "gradient": lambda step, take: take(step.gradient),
    "buffer": lambda step, take: take(step.gradient if step.buffer is None else step.buffer),  # b = g at first
}


class Form(NamedTuple):
    """What a signal is: xᵀSy of a quadratic charge, ⟨a, z⟩ of a translation charge (None: it has no such signal)."""

    x: str
    y: str
    z: str | None


# Every backend evaluates what is in this table. Those of `MAIN`, which are always wanted, have kernels of their own.
FORMS: Mapping[str, Form] = {
    "value": Form("theta", "theta", "theta"),
    "drive_update": Form("update", "update", "update"),
    "drive_gradient": Form("gradient", "gradient", "gradient"),
    "residual": Form("theta", "gradient", "gradient"),
    "drive_buffer": Form("update", "buffer", "buffer"),
}
MAIN = ("value", "drive_update", "drive_gradient", "residual")


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
    buffer: Float[Tensor, " parameters"] | None
    lr: float
    momentum: float
    weight_decay: float


class Mover(Protocol):
    """Takes steps of SGD in the pass that measures them; θ, flat, is changed in place."""

    theta: Float[Tensor, " parameters"]

    def move(self, motion: Motion) -> None:
        """Take a step, and measure nothing."""
        ...

    def measure(self, motion: Motion, out: Float64[Tensor, "signals charges"]) -> Step:
        """Take a step and write its forms to `out`.

        Returns the step, whose θ_k and g are valid only where they were to be kept.
        """
        ...


class Backend(Protocol):
    """Evaluates charges: all forms of a step that somebody took, or of one that it takes itself."""

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write the forms to `out`."""
        ...

    def mover(self, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> Mover | None:
        """What takes steps of SGD, with PyTorch's bits; None where there is no such thing.

        `kept` are parameters whose θ_k and g are needed after a step.
        """
        ...


def rate_of(lr: float) -> float:
    """1/η as `Step` has it."""
    return 1.0 / lr if lr else 0.0
