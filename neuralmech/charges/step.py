"""One optimiser step as charges see it: a few flat vectors, the signals as forms of them, and who evaluates these."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Take = Callable[[Tensor], Tensor]


class Moments(NamedTuple):
    """What Adam's rule keeps, after the step from θ_k to θ_{k+1}, which moved θ by −η·c·m/w.

    Attributes
    ----------
    mean, square
        m and v, flat; with AMSGrad the largest v so far.
    correction
        c = 1/(1 − β₁^t) at the t-th step.
    root
        1/√(1 − β₂^t).
    eps
        ε of w = √v/√(1 − β₂^t) + ε, the metric in which the step is one of steepest descent along m.
    """

    mean: Float[Tensor, " parameters"]
    square: Float[Tensor, " parameters"]
    correction: float | Float64[Tensor, ""]
    root: float | Float64[Tensor, ""]
    eps: float


class Kept(NamedTuple):
    """What a learning rule keeps of a step, and its decoupled weight decay; see `Step`."""

    buffer: Float[Tensor, " parameters"] | None = None
    moments: Moments | None = None
    ascent: Float[Tensor, " parameters"] | None = None
    decay: float | Float64[Tensor, ""] = 0.0


class Step(NamedTuple):
    """Flat vectors of the step from θ_k to θ_{k+1}.

    Attributes
    ----------
    before, after
        θ_k and θ_{k+1} as stored.
    gradient
        Loss gradient at θ_k, without weight decay, as the rule sees it (clipped, or taken elsewhere); times r.
    rate
        1/η, or 0 for a step with η = 0, which does not move; a number, or a tensor that a CUDA graph reads.
    buffer
        Momentum buffer after the step, times r.
    moments
        Those of Adam.
    ratio
        r: the learning rate of each parameter relative to η; None if all have η.
    shrink
        κ = rℓ: how fast each parameter decays, relative to ηλ; None if all do so.
    decay
        λ, where θ ← θ − ηκλθ apart from the rule's own update; 0 otherwise.
    ascent
        The gradient at θ_k where the rule's is another one: that of sharpness-aware minimisation.
    rule
        The rule's own update v, in float64, if somebody has made it already; see `with_rule`.
    flip
        ½(u_k − u_{k−1}), half of what the update changed by since the step before; None if nobody knows.
    """

    before: Float[Tensor, " parameters"]
    after: Float[Tensor, " parameters"]
    gradient: Float[Tensor, " parameters"]
    rate: float | Float64[Tensor, ""]
    buffer: Float[Tensor, " parameters"] | None = None
    moments: Moments | None = None
    ratio: Float64[Tensor, " parameters"] | None = None
    shrink: Float64[Tensor, " parameters"] | None = None
    decay: float | Float64[Tensor, ""] = 0.0
    ascent: Float[Tensor, " parameters"] | None = None
    rule: Float64[Tensor, " parameters"] | None = None
    flip: Float64[Tensor, " parameters"] | None = None

    def with_rule(self) -> Step:
        """The same, with v made once for whoever reads it more than once."""
        return self if self.rule is not None else self._replace(rule=self.vector("rule"))

    def vector(self, name: str, take: Take = lambda x: x) -> Float64[Tensor, "*shape"]:
        """A part of one of the `VECTORS`, in float64."""
        return VECTORS[name](self, take).to(torch.float64)


def _metric(step: Step, take: Take) -> Tensor:
    """w; of other rules than Adam's there is none, and its forms are zero."""
    if step.moments is None:
        return torch.zeros_like(take(step.before), dtype=torch.float64)
    return take(step.moments.square).double().sqrt().mul_(step.moments.root).add_(step.moments.eps)


def _mean(step: Step, take: Take) -> Tensor:
    """m, times r."""
    if step.moments is None:
        return torch.zeros_like(take(step.before), dtype=torch.float64)
    mean = take(step.moments.mean).to(torch.float64, copy=True)
    return mean if step.ratio is None else mean.mul_(take(step.ratio))


def _shrunk(step: Step, take: Take) -> Tensor:
    """κθ."""
    theta = take(step.before).to(torch.float64, copy=True)
    return theta if step.shrink is None else theta.mul_(take(step.shrink))


def _rule(step: Step, take: Take) -> Tensor:
    """The rule's own update v, of (θ_k − θ_{k+1})/η = λκθ_k + v: out of Adam's moments, or else out of the motion."""
    if step.rule is not None:
        return take(step.rule)
    if step.moments is not None:
        return _mean(step, take).mul_(step.moments.correction).div_(_metric(step, take))
    return VECTORS["update"](step, take) - step.decay * _shrunk(step, take)


# What signals are forms of: by name, how a part of it is made of the same part of a step's vectors.
VECTORS: Mapping[str, Callable[[Step, Take], Tensor]] = {
    "theta": lambda step, take: take(step.before),
    "after": lambda step, take: take(step.after),
    "update": lambda step, take: (take(step.before).double() - take(step.after)).mul_(step.rate),
    "gradient": lambda step, take: take(step.gradient),
    "buffer": lambda step, take: take(step.gradient if step.buffer is None else step.buffer),  # b = g at first
    "ascent": lambda step, take: take(step.gradient if step.ascent is None else step.ascent),
    "rule": _rule,
    "shrunk": _shrunk,
    "flip": lambda step, take: torch.zeros_like(take(step.before)) if step.flip is None else take(step.flip),
    "one": lambda step, take: torch.ones_like(take(step.before)),
    "rule squared": lambda step, take: _rule(step, take).square(),
    "mean": _mean,
    "mean by the metric": lambda step, take: _mean(step, take).div_(_metric(step, take)),
    "theta in the metric": lambda step, take: _metric(step, take).mul_(take(step.before)),
    "after in the metric": lambda step, take: _metric(step, take).mul_(take(step.after)),
    "shrunk in the metric": lambda step, take: _metric(step, take).mul_(_shrunk(step, take)),
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
    "drive_ascent": Form("ascent", "gradient", None),
    "decay": Form("theta", "shrunk", "shrunk"),
    "drive_flip": Form("flip", "flip", None),
    "rule_work": Form("theta", "rule", "rule"),
    "magnitude": Form("theta", "theta", "one"),
    "rule_magnitude": Form("rule", "rule", "rule squared"),
    "metric_value": Form("theta", "theta in the metric", "theta in the metric"),
    "metric_carried": Form("after", "after in the metric", "after in the metric"),
    "metric_drive": Form("mean", "mean by the metric", None),
    "metric_decay": Form("theta", "shrunk in the metric", "shrunk in the metric"),
    "metric_decay_twice": Form("shrunk", "shrunk in the metric", None),
    "metric_decay_mean": Form("shrunk", "mean", None),
}
MAIN = ("value", "drive_update", "drive_gradient", "residual")


class AdamMotion(NamedTuple):
    """A step of Adam that is still to be taken.

    Attributes
    ----------
    gradients
        Of the parameters, in the layout's order; dense.
    mean, square
        m and v, flat, changed in place.
    lr, weight_decay, betas, eps
        η, λ, (β₁, β₂), ε.
    taken
        t: the number of steps with this one.
    decoupled
        Whether θ ← (1 − ηλ)θ beside Adam's own motion; otherwise λθ is added to the gradient.
    """

    gradients: Sequence[Tensor]
    mean: Float[Tensor, " parameters"]
    square: Float[Tensor, " parameters"]
    lr: float
    weight_decay: float
    betas: tuple[float, float]
    eps: float
    taken: float
    decoupled: bool

    def moments(self) -> Moments:
        """What the rule keeps, once the step is taken."""
        return moments_of(self.mean, self.square, self.betas, self.taken, self.eps)


class AdamState(NamedTuple):
    """m and v of each parameter, in tensors that stay where they are, (β₁, β₂), ε, and t with the last step."""

    means: Sequence[Tensor]
    squares: Sequence[Tensor]
    betas: tuple[float, float]
    eps: float
    taken: float


class Taken(NamedTuple):
    """A step that somebody else took, of any rule, in tensors that stay where they are.

    Attributes
    ----------
    parameters, gradients
        θ_{k+1} and g of each parameter, in the layout's order; dense, of the type of θ.
    lr
        η.
    adam
        What Adam keeps; of other rules None.
    """

    parameters: Sequence[Tensor]
    gradients: Sequence[Tensor]
    lr: float
    adam: AdamState | None = None


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


M = TypeVar("M", contravariant=True)


class Mover(Protocol[M]):
    """Takes steps of a rule in the pass that measures them, or reads in it those that somebody else took.

    θ, flat, is θ_k, and becomes θ_{k+1} in place. Steps to be taken are a `Motion` of SGD or an `AdamMotion`.
    """

    theta: Float[Tensor, " parameters"]

    def move(self, motion: M, /) -> None:
        """Take a step, and measure nothing."""
        ...

    def measure(self, step: M | Taken, out: Float64[Tensor, "signals charges"], /) -> Step:
        """Take or read a step and write its forms to `out`.

        Returns the step, whose θ_k and g are valid only where they were to be kept.
        """
        ...


class Backend(Protocol):
    """Evaluates charges: all forms of a step that somebody took, or of one that it takes itself."""

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write the forms to `out`."""
        ...

    def mover(self, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> Mover | None:
        """What takes steps of the rule whose signals these are, with PyTorch's bits; None where there is no such thing.

        `kept` are parameters whose θ_k and g are needed after a step.
        """
        ...

    def follower(self, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> Mover | None:
        """The same for steps that somebody else takes, of any rule and whatever its bits; None where nothing is gained.

        It is not asked to move.
        """
        ...


def moments_of(
    mean: Float[Tensor, " parameters"],
    square: Float[Tensor, " parameters"],
    betas: tuple[float, float],
    taken: float | Float[Tensor, ""],
    eps: float,
) -> Moments:
    """Adam's moments with the corrections of step t; a root, unlike a power of ½, is rounded alike everywhere."""
    first, second = (1 - beta**taken for beta in betas)
    root = second.sqrt() if isinstance(second, Tensor) else math.sqrt(second)
    return Moments(mean, square, 1 / first, 1 / root, eps)


def rate_of(lr: float) -> float:
    """1/η as `Step` has it."""
    return 1.0 / lr if lr else 0.0
