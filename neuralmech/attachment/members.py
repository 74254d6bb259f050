"""Groups of optimisers that somebody else made: their hyperparameters, and what can be said of them by trying."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from neuralmech.rules import DECOUPLED, decays_apart, name_of, rounds_decay

CANNOT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class GroupOptions(NamedTuple):
    """Hyperparameters of a group at a step."""

    lr: float
    weight_decay: float
    momentum: float
    dampening: float
    nesterov: bool


GIVEN = (*GroupOptions._fields, "betas")
FIXED = (int, float, type(None))


class Member(NamedTuple):
    """A group of an optimiser, and the names of its parameters."""

    optimizer: Optimizer
    group: int
    names: tuple[str, ...]

    def given(self) -> tuple[Any, ...]:
        """What its options are made of; never twice the same if that might change in place, as tensors and lists do."""
        found = tuple(map(self.optimizer.param_groups[self.group].get, GIVEN))
        *numbers, betas = found
        stays = all(
            isinstance(value, FIXED) for value in (*numbers, *(betas if isinstance(betas, tuple) else (betas,)))
        )
        return found if stays else (*found, object())

    def options(self) -> GroupOptions:
        """What it has now."""
        group = self.optimizer.param_groups[self.group]
        lr, decay, beta, dampening = (float(group.get(name, 0.0) or 0.0) for name in GroupOptions._fields[:4])
        return _of_adam(group, GroupOptions(lr, decay, beta, dampening, bool(group.get("nesterov", False))))


def _of_adam(group: Mapping[str, Any], options: GroupOptions) -> GroupOptions:
    """β₁ is Adam's momentum."""
    return options if "betas" not in group else options._replace(momentum=float(group["betas"][0]))


def usual_rate(member: Member) -> float:
    """η of a group; of one that warms up from zero that of its scheduler."""
    group = member.optimizer.param_groups[member.group]
    return member.options().lr or float(group.get("initial_lr", 0.0))


def kind_of(member: Member) -> str:
    """Whose laws hold, or the name of the class."""
    name = name_of(member.optimizer, member.group)
    return "muon" if isinstance(member.optimizer, torch.optim.Muon) else name


def _again(member: Member, p: nn.Parameter, decay: float) -> Optimizer:
    """Another optimiser of the same class and options."""
    group = {k: v for k, v in member.optimizer.param_groups[member.group].items() if k != "params"}
    kind: Any = type(member.optimizer)
    takes = {name for name in inspect.signature(kind).parameters if name in group}
    return kind([p], **{name: group[name] for name in takes} | {"lr": float(group["lr"]) or 1.0, "weight_decay": decay})


def is_decoupled(member: Member, kind: str) -> bool:
    """By its name, or by trying it; what cannot be tried is taken as it moves."""
    options = member.options()
    if kind in ("sgd", "adam") or not options.weight_decay:
        return kind in DECOUPLED
    if kind in DECOUPLED:
        return True
    try:
        return decays_apart(lambda p, decay: _again(member, p, decay), options.lr or 1.0)
    except CANNOT:
        return False


def rounds_decay_of(member: Member, like: Float[Tensor, "*shape"]) -> bool:
    """Whether it multiplies float32 by 1 − ηλ rounded to float32, see `rounds_decay`."""
    options = member.options()
    try:
        rate = options.lr or 1.0
        return rounds_decay(lambda p, decay: _again(member, p, decay), rate, options.weight_decay, like)
    except CANNOT:
        return False
