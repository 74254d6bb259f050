"""The learning rule of a run: which optimiser, its numbers, and what is done to gradients before it sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

from neuralmech.checks import check_at_least, check_choice, check_fraction
from neuralmech.errors import UserError
from neuralmech.schedules import SCHEDULES
from neuralmech.targets import locate
from neuralmech.words import Differing

OPTIMIZERS = ("sgd", "sgdw", "adam", "adamw", "muon")


@dataclass(repr=False)
class ScheduleConfig(Differing):
    """Learning rate (or weight decay) over the run, as a factor on ``optim.lr`` (``optim.weight_decay``).

    `warmup` is the number of steps of linear warm-up before the schedule proper. ``step`` falls by `gamma` every
    `step_size` steps, ``milestones`` at each step in `milestones`; ``one_cycle`` rises from 1/`div_factor` to 1 over
    the share `peak` of the run and falls to 1/(`div_factor`·`final_div_factor`), along half waves of a cosine.
    """

    name: str = "constant"
    warmup: int = 0
    min_factor: float = 0.0
    step_size: int = 1000
    gamma: float = 0.1
    milestones: list[int] = field(default_factory=list)
    peak: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    @property
    def changes(self) -> bool:
        """Whether the factor is anything but 1 all along."""
        return self.name != "constant" or self.warmup > 0

    def check(self, key: str = "optim.schedule", what: str = "lr") -> None:
        """Raise a `UserError` for impossible values."""
        check_choice(f"{key}.name", self.name, SCHEDULES)
        check_at_least(f"{key}.warmup", self.warmup, 0)
        check_at_least(f"{key}.min_factor", self.min_factor, 0)
        check_at_least(f"{key}.step_size", self.step_size, 1)
        if not 0 < self.gamma < inf:
            raise UserError(f"{key}.gamma={self.gamma} must be positive; 0.1 divides {what} by ten")
        if (self.name == "milestones") != bool(self.milestones):
            raise UserError(f"{key}.milestones={self.milestones} goes with {key}.name=milestones; give both or neither")
        if any(step < 1 for step in self.milestones) or sorted(set(self.milestones)) != list(self.milestones):
            raise UserError(f"{key}.milestones={self.milestones} must be steps in ascending order, such as [1000,1500]")
        check_fraction(f"{key}.peak", self.peak)
        check_at_least(f"{key}.div_factor", self.div_factor, 1)
        check_at_least(f"{key}.final_div_factor", self.final_div_factor, 1)


@dataclass(repr=False)
class GroupConfig(Differing):
    """Parameters with a learning rate and weight decay of their own.

    `match` is ``bias`` (what is so called), ``norm`` (all of normalisation layers), ``matrix`` (whatever has two
    dimensions or more), or a pattern of names such as ``layers.0.*``; `lr` and `weight_decay` are factors on
    ``optim.lr`` and ``optim.weight_decay``. A parameter is of the first group that it matches.
    """

    match: str = ""
    lr: float = 1.0
    weight_decay: float = 1.0

    def check(self, key: str) -> None:
        """Raise a `UserError` for impossible values."""
        if not self.match:
            raise UserError(f"{key}.match is missing; give bias, norm, matrix or a pattern of names such as layers.0.*")
        if not 0 < self.lr < inf:
            raise UserError(
                f"{key}.lr={self.lr} must be a positive factor on optim.lr; what is not to move, freeze in the model"
            )
        if not 0 <= self.weight_decay < inf:
            raise UserError(
                f"{key}.weight_decay={self.weight_decay} is no factor on optim.weight_decay; use 0 for none"
            )


@dataclass(repr=False)
class RuleConfig(Differing):
    """What all learning rules have: η, λ, their schedules and groups, and what is done to gradients.

    `clip_norm` shortens a gradient to this norm, `clip_value` cuts each entry to ±this value (null: neither).
    `sam_rho` is the radius ρ of sharpness-aware minimisation: the gradient is taken at θ + ρ g/|g| (0: at θ).
    """

    lr: float = 0.1
    weight_decay: float = 0.0
    groups: list[GroupConfig] = field(default_factory=list)
    clip_norm: float | None = None
    clip_value: float | None = None
    sam_rho: float = 0.0
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    weight_decay_schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    @property
    def changes_gradients(self) -> bool:
        """Whether the rule sees other gradients than those of the loss."""
        return self.clip_norm is not None or self.clip_value is not None or self.sam_rho > 0

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        if not 0 < self.lr < inf:
            raise UserError(f"optim.lr={self.lr} must be a positive number, such as 0.1")
        if not 0 <= self.weight_decay < inf:
            raise UserError(f"optim.weight_decay={self.weight_decay} must not be negative; use 0 for none")
        for number, group in enumerate(self.groups):
            group.check(f"optim.groups[{number}]")
        for name, value in (("clip_norm", self.clip_norm), ("clip_value", self.clip_value)):
            if value is not None and not 0 < value < inf:
                raise UserError(f"optim.{name}={value} must be a positive number, such as 1.0; use null for none")
        if not 0 <= self.sam_rho < inf:
            raise UserError(f"optim.sam_rho={self.sam_rho} must not be negative; 0.05 is usual, 0 for none")
        self.schedule.check()
        self.weight_decay_schedule.check("optim.weight_decay_schedule", "weight_decay")


@dataclass(repr=False)
class OptimConfig(RuleConfig):
    """A rule by its name.

    PyTorch's SGD: η, β, δ, λ; SGD with decoupled weight decay (sgdw); Adam and AdamW (`betas`, `eps`, `amsgrad`);
    Muon for matrices (`momentum`, `nesterov`, `polar`) with AdamW for the rest. `polar` is how Muon finds the polar
    factor of its momentum: by PyTorch's Newton–Schulz iteration in bfloat16, or ``exact``, by singular values.
    """

    name: str = "sgd"
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    amsgrad: bool = False
    polar: str = "newton_schulz"

    def check(self) -> None:
        """Raise a `UserError` for values that the rule does not allow."""
        check_choice("optim.name", self.name, OPTIMIZERS)
        if not 0 <= self.momentum < 1:
            raise UserError(f"optim.momentum={self.momentum} must lie in [0, 1); use 0 for none")
        if not 0 <= self.dampening < 1:
            raise UserError(f"optim.dampening={self.dampening} must lie in [0, 1); use 0 for none")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise UserError(
                "optim.nesterov=true needs optim.momentum > 0 and optim.dampening=0; set them or use nesterov=false"
            )
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise UserError(f"optim.betas={list(self.betas)} must be two numbers in [0, 1), such as [0.9, 0.999]")
        if not 0 <= self.eps < inf:
            raise UserError(f"optim.eps={self.eps} must not be negative; 1e-8 is usual")
        if self.name.startswith("adam") and (self.momentum or self.dampening or self.nesterov):
            raise UserError(f"optim.momentum, dampening and nesterov are SGD's; {self.name} has optim.betas")
        if self.name == "muon" and self.dampening:
            raise UserError("optim.dampening is SGD's; muon has optim.momentum and optim.nesterov")
        if self.amsgrad and not self.name.startswith("adam"):
            raise UserError(f"optim.amsgrad=true is for adam and adamw; {self.name} has no second moment to keep")
        check_choice("optim.polar", self.polar, ("newton_schulz", "exact"))
        super().check()


@dataclass(repr=False)
class OwnRuleConfig(RuleConfig):
    """``_target_``: dotted path of a `torch.optim.Optimizer` class; everything else in the group is its arguments."""

    name: str = "_target_"
    target: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise a `UserError` if there is nothing of that name."""
        locate("optim", self.target)
        super().check()


RULES: dict[str, type[RuleConfig]] = {**dict.fromkeys(OPTIMIZERS, OptimConfig), "_target_": OwnRuleConfig}
