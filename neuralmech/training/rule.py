"""The learning rule of a run: its optimiser, its hyperparameters at each step, and what its state says of a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralmech.charges.step import Kept, Moments, moments_of
from neuralmech.config import OptimConfig, OwnRuleConfig, RuleConfig
from neuralmech.rules import DECOUPLED, FLAT, name_of, numbers_of, signals_of
from neuralmech.schedules import scheduled
from neuralmech.training.flat import FlatParameters
from neuralmech.training.groups import Groups
from neuralmech.training.optimizers import build, build_muon, build_own, decays_apart, rounds_decay, step


class LearningRule:
    """What moves the parameters.

    Attributes
    ----------
    name
        Whose laws hold: ``sgd``, ``sgdw``, ``adam``, ``adamw``, ``muon``, or a class that has none.
    optimizer
        PyTorch's: on the flat vector, on a part of it for each group, or on the parameters one by one.
    groups
        Of the parameters.
    decoupled
        Whether θ ← θ − ηλθ apart from the rule's own update.

    With `keeps_buffer` the momentum buffer is among what is kept of a step of SGD, though its laws may not need it.
    """

    def __init__(self, config: RuleConfig, flat: FlatParameters, groups: Groups, *, keeps_buffer: bool = False) -> None:
        self.config, self.groups = config, groups
        self.optimizer, numbers = _built(config, flat, groups)
        self._factors = [groups.factors[number] for number in numbers]
        self._held = [p for group in self.optimizer.param_groups for p in group["params"]]
        if isinstance(config, OwnRuleConfig):
            self.name = name_of(self.optimizer)
            self.decoupled = self.name in DECOUPLED if self.name in FLAT else decays_apart(config)
        else:
            assert isinstance(config, OptimConfig)
            self.name, self.decoupled = config.name, config.name in DECOUPLED
        other = "adamw" if self.name == "muon" else self.name
        self._has_buffer = "drive_buffer" in self.signals or (keeps_buffer and self.has_sgds_laws)
        self._rules = {n: self.name if len(shape) > 1 else other for n, shape in flat.layout.shapes.items()}

    @property
    def has_sgds_laws(self) -> bool:
        """Whether it is SGD, with weight decay of either kind."""
        return self.name in ("sgd", "sgdw")

    @property
    def has_adams_laws(self) -> bool:
        """Whether it is Adam, with weight decay of either kind."""
        return self.name in ("adam", "adamw")

    @property
    def is_nesterovs(self) -> bool:
        """Whether it is SGD with Nesterov momentum."""
        return self.has_sgds_laws and bool(self.optimizer.param_groups[0]["nesterov"])

    def row(self, step: int, steps: int, time: float, batch_size: int) -> dict[str, float]:
        """Columns of ``/steps`` for a step; time is Σ η of the steps before.

        The momentum is β₁ of Adam, and 0 of rules that have no law to read it.
        """
        config, options = self.config, self.optimizer.param_groups[0]
        sgd = options if self.has_sgds_laws else {}
        return {
            "step": step,
            "time": time,
            "lr": scheduled(config.lr, config.schedule, step, steps),
            "momentum": options["betas"][0] if self.has_adams_laws else sgd.get("momentum", 0.0),
            "dampening": sgd.get("dampening", 0.0),
            "weight_decay": scheduled(config.weight_decay, config.weight_decay_schedule, step, steps),
            "nesterov": sgd.get("nesterov", False),
            "decoupled": self.decoupled,
            "batch_size": batch_size,
        }

    def set(self, row: Mapping[str, float | Float[Tensor, ""]]) -> None:
        """Give the optimiser the learning rate and weight decay of a step, times each group's factors."""
        for group, factor in zip(self.optimizer.param_groups, self._factors, strict=True):
            decay = "decay" if "decay" in group else "weight_decay"
            group["lr"] = row["lr"] if factor.lr == 1 else row["lr"] * factor.lr
            if decay in group:
                group[decay] = row["weight_decay"] * factor.weight_decay

    def moments(self) -> Moments | None:
        """Adam's moments after a step; None of other rules.

        On a GPU, and in a graph, the corrections are numbers there, so that nobody waits.
        """
        if not self.has_adams_laws:
            return None
        options = self.optimizer.param_groups[0]
        mean, square = self._kept("exp_avg"), self._kept("max_exp_avg_sq" if options["amsgrad"] else "exp_avg_sq")
        if mean is None or square is None:
            return None
        taken = self.optimizer.state[self._held[0]]["step"]
        on_device = taken.is_cuda or options.get("capturable")  # and a graph counts there
        count = taken.double().clamp(min=1) if on_device else max(1.0, float(taken))  # fp16 may leave out the first
        return moments_of(mean, square, options["betas"], count, options["eps"])

    def kept(
        self, row: Mapping[str, float | Float[Tensor, ""]], ascent: Float[Tensor, " parameters"] | None = None
    ) -> Kept:
        """What it keeps of the step just taken, with the gradient at θ_k where its own is another one."""
        buffer = self._kept("momentum_buffer") if self._has_buffer else None
        return Kept(buffer, self.moments(), ascent, row["weight_decay"] if self.decoupled else 0.0)

    @property
    def signals(self) -> tuple[str, ...]:
        """What its laws and accounts need to have recorded besides the usual."""
        differs, ascent = self.groups.decays is not None, ("drive_ascent",) if self.config.sam_rho else ()
        of = {"nesterov": self.is_nesterovs, "decoupled": self.decoupled, "differs": differs}
        return (*signals_of({self.name}, **of), *ascent)

    @property
    def rules(self) -> dict[str, str] | None:
        """Name of the rule that moves each parameter, where there are several."""
        return self._rules if len(set(self._rules.values())) > 1 else None

    def description(self) -> dict[str, object]:
        """What the record says of it: whose laws hold, and the names of its parts by their numbers in an index.

        Of a class of the user's own that is not SGD also what it was made with, as far as these are numbers.
        """
        rounds = self.decoupled and rounds_decay(self.config, self._held[0])
        parts = list(dict.fromkeys(self._rules.values()))
        is_own = isinstance(self.config, OwnRuleConfig) and not self.has_sgds_laws
        own = {"options": numbers_of(self.optimizer.param_groups[0])} if is_own else {}
        return {"name": self.name, "decoupled": self.decoupled, "parts": parts, "rounds_decay": rounds, **own}

    def step(self) -> None:
        """Take a step."""
        step(self.optimizer, self.config)

    def _kept(self, name: str) -> Float[Tensor, " parameters"] | None:
        """What the optimiser keeps of every parameter under a name, flat; None before the first step."""
        found = [self.optimizer.state[p].get(name) for p in self._held]
        if any(part is None for part in found):
            return None
        return found[0].view(-1) if len(found) == 1 else torch.cat([part.view(-1) for part in found])

    @property
    def numbers_kept(self) -> int:
        """How many numbers it keeps for each parameter, of another's rule a guess from above."""
        if self.has_sgds_laws:
            return int(bool(self.optimizer.param_groups[0]["momentum"]))
        if self.has_adams_laws:
            return 2 + int(self.optimizer.param_groups[0]["amsgrad"])
        return 2 if self.name == "muon" else 4

    def check_state(self, saved: Mapping[str, Any]) -> None:
        """Raise a `ValueError` for tensors of an optimiser that this one does not keep; loading checks the rest."""
        tensors = {k: {n: v for n, v in of.items() if isinstance(v, Tensor)} for k, of in saved["state"].items()}
        shapes = {k: {n: v.shape for n, v in of.items()} for k, of in tensors.items()}
        if not shapes.keys() <= set(range(len(self._held))):
            raise ValueError("its optimizer's state is of other parameters")
        for number, p in enumerate(self._held):
            found, own = shapes.get(number, {}), self._names_kept(p)
            if own is not None and found not in ({}, {n: torch.Size() if n == "step" else p.shape for n in own}):
                raise ValueError("its optimizer's state is of another shape")  # none before the first step

    def _names_kept(self, p: nn.Parameter) -> tuple[str, ...] | None:
        """Names of what is kept of a parameter; None if nobody knows."""
        is_muons_matrix = self.name == "muon" and p.ndim == 2
        if self.has_sgds_laws or is_muons_matrix:
            return ("momentum_buffer",)
        if not (self.has_adams_laws or self.name == "muon"):
            return None
        amsgrad = self.has_adams_laws and self.optimizer.param_groups[0]["amsgrad"]
        return ("step", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if amsgrad else ()))

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take over a saved optimiser. What is in its groups the config says, but for a class of the user's own."""
        is_own = isinstance(self.config, OwnRuleConfig)
        groups = saved["param_groups"] if is_own else self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})

    def tensors(self) -> list[Float[Tensor, "*shape"]]:
        """Everything that the optimiser keeps."""
        return [v for state in self.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]


def _built(config: RuleConfig, flat: FlatParameters, groups: Groups) -> tuple[torch.optim.Optimizer, list[int]]:
    """The optimiser, and for each of its groups the number of ours. Parameters are in the order of the layout."""
    used = sorted(set(groups.of.values()))
    members = {number: [n for n in flat.layout.offsets if groups.of[n] == number] for number in used}
    if isinstance(config, OwnRuleConfig):
        named = flat.named()
        return build_own(config, [{"params": [named[n] for n in names]} for names in members.values()]), used
    assert isinstance(config, OptimConfig)
    if config.name == "muon":
        return _muon(config, flat, members)
    if len(used) == 1:
        return build(config, [{"params": [flat.theta]}]), used
    return build(config, [{"params": [_part(flat, names)]} for names in members.values()]), used


def _muon(
    config: OptimConfig, flat: FlatParameters, members: Mapping[int, list[str]]
) -> tuple[torch.optim.Optimizer, list[int]]:
    named = flat.named()
    matrices = {k: [_matrix(named[n]) for n in names if named[n].ndim >= 2] for k, names in members.items()}
    rest = {k: [named[n] for n in names if named[n].ndim < 2] for k, names in members.items()}
    both = [{k: held for k, held in part.items() if held} for part in (matrices, rest)]
    first, second = ([{"params": held} for held in part.values()] for part in both)
    return build_muon(config, first, second), [*both[0], *both[1]]


def _part(flat: FlatParameters, names: list[str]) -> nn.Parameter:
    """Parameters side by side as one."""
    start = flat.layout.offsets[names[0]]
    return flat.part(start, start + sum(math.prod(flat.layout.shapes[name]) for name in names))


def _matrix(p: nn.Parameter) -> nn.Parameter:
    """A weight as a matrix: of a convolution, the filters as rows."""
    if p.ndim == 2:
        return p
    out = nn.Parameter(p.detach().view(len(p), -1))
    out.grad = None if p.grad is None else p.grad.view(len(p), -1)
    return out
