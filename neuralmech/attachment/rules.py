"""The learning rules of optimisers that somebody else made: hyperparameters of a step, and what they keep of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuralmech.charges.step import AdamState, Kept, moments_of
from neuralmech.rules import DECOUPLED, decays_apart, name_of, numbers_of, rounds_decay, signals_of

SAME = 1e-9  # relative: by which schedulers round the learning rates of groups apart
CANNOT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


Flat = Callable[[str, Mapping[str, Tensor]], Tensor | None]  # one tensor of those of all parameters, None if some lack


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


class ForeignRule:
    """What is known of optimisers and of how they move the parameters that are tracked.

    Of several groups the first with the largest learning rate gives η and λ; the others' are relative to it, which a
    scheduler must not change.

    Attributes
    ----------
    name
        Whose laws hold; of several rules that of the first group.
    ratios, decays
        r and κ of each parameter; None where they are one for all.
    rules
        Name of each parameter's rule; None where it is one for all.
    is_adams
        Whether all are Adam, with moments of one age.
    """

    def __init__(self, optimizers: Sequence[Optimizer], names: Mapping[int, str], like: Tensor) -> None:
        found = [
            Member(optimizer, number, tuple(names[id(p)] for p in group["params"] if id(p) in names))
            for optimizer in optimizers
            for number, group in enumerate(optimizer.param_groups)
        ]
        self.members = [member for member in found if member.names]
        self._held = {name: p for o in optimizers for p, name in _named(o, names)}
        self._of = {name: member for member in self.members for name in member.names}
        start = [member.options() for member in self.members]
        rates = [_usual_rate(member, options) for member, options in zip(self.members, start, strict=True)]
        self._base = max(range(len(rates)), key=lambda i: rates[i])
        base = rates[self._base] or 1.0
        self._ratios = [rate / base if rate else 1.0 for rate in rates]
        self._decaying = next((i for i, o in enumerate(start) if o.weight_decay), self._base)
        decay = start[self._decaying].weight_decay
        self._factors = [o.weight_decay / decay if decay else 1.0 for o in start]
        self._betas = [o.momentum for o in start]
        self._kinds = [_kind(member) for member in self.members]
        self.name = self._kinds[self._base]
        self._apart = [_is_decoupled(m, kind) for m, kind in zip(self.members, self._kinds, strict=True)]
        if len(set(self._apart)) > 1:  # the one decoupled weight decay of a step is part of the update then
            known = zip(self._kinds, self._apart, strict=True)
            self._kinds = [f"{kind} (decoupled)" if apart else kind for kind, apart in known]
        self.decoupled = all(self._apart)
        self._rounds = self.decoupled and _rounds_decay(self.members[self._decaying], like)
        self._labels = [self._label(i) for i in range(len(self.members))]
        differing = len(set(self._labels)) > 1
        label = {name: self._labels[i] for i, m in enumerate(self.members) for name in m.names}
        self.rules = {name: label[name] for name in names.values() if name in label} if differing else None
        self.ratios = self._by_name(self._ratios)
        self.decays = self._by_name([r * f for r, f in zip(self._ratios, self._factors, strict=True)])
        self.is_adams = set(self._kinds) <= {"adam", "adamw"} and self._counts_agree()
        self._has_buffer = "drive_buffer" in self.signals
        self._given: list[tuple[Any, ...]] = []
        self._row: dict[str, float] | None = None

    @property
    def is_several(self) -> bool:
        """Whether there is more than one optimiser."""
        return any(member.optimizer is not self.members[0].optimizer for member in self.members)

    @property
    def has_sgds_laws(self) -> bool:
        """Whether all are SGD."""
        return set(self._kinds) <= {"sgd", "sgdw"}

    @property
    def _group(self) -> dict[str, Any]:
        """The group whose η and β are the run's."""
        base = self.members[self._base]
        return base.optimizer.param_groups[base.group]

    def _label(self, i: int) -> str:
        return f"{self._kinds[i]} {self._betas[i]!r}" if len(set(self._betas)) > 1 else self._kinds[i]

    def _by_name(self, values: list[float]) -> dict[str, float] | None:
        found = {name: value for m, value in zip(self.members, values, strict=True) for name in m.names}
        return found if any(value != 1 for value in values) else None

    def _counts_agree(self) -> bool:
        counts = {float(s["step"]) for s in map(self._state, self._held) if "step" in s}
        return len(counts) <= 1

    def _state(self, name: str) -> Mapping[str, Any]:
        return self._of[name].optimizer.state.get(self._held[name], {})

    @property
    def signals(self) -> tuple[str, ...]:
        """What its laws and accounts need to have recorded besides the usual."""
        nesterov, differs = any(member.options().nesterov for member in self.members), self.decays is not None
        return signals_of(
            self._kinds, nesterov=nesterov, decoupled=self.decoupled, differs=differs, metric=self.is_adams
        )

    def row(self) -> dict[str, float] | None:
        """Hyperparameters of the coming step, as ``/steps`` has them; None if they are not what they were in relation.

        The momentum is that of the group whose η it is; of rules without a law to read it, 0.
        """
        given = [member.given() for member in self.members]
        if given != self._given:
            self._given, self._row = given, self._read()
        return self._row

    def _read(self) -> dict[str, float] | None:
        """A row of what the groups have now."""
        now = [member.options() for member in self.members]
        base, decay = now[self._base], now[self._decaying].weight_decay
        parts = zip(now, self._ratios, self._factors, self._betas, self._kinds, strict=True)
        for options, ratio, factor, beta, kind in parts:
            drifts = abs(options.lr - ratio * base.lr) > SAME * max(abs(options.lr), abs(base.lr))
            decays = abs(options.weight_decay - factor * decay) > SAME * max(abs(options.weight_decay), abs(decay))
            is_read = self.rules is not None and (self.is_adams or kind in ("sgd", "sgdw"))  # β, by a law
            if drifts or decays or (is_read and options.momentum != beta):
                return None
        has_law = self.has_sgds_laws or self.is_adams
        return {
            "lr": base.lr,
            "momentum": base.momentum if has_law else 0.0,
            "dampening": base.dampening if self.has_sgds_laws else 0.0,
            "weight_decay": decay,
            "nesterov": base.nesterov and self.has_sgds_laws,
            "decoupled": self.decoupled,
        }

    def kept(self, row: Mapping[str, float], flat: Flat) -> Kept:
        """What is kept of the step just taken; `flat` makes one tensor of those of all parameters."""
        buffer = flat("momentum_buffer", self._all("momentum_buffer")) if self._has_buffer else None
        moments, options = None, self._group
        if self.is_adams:
            mean, square = (flat(key, self._all(key)) for key in self._moments)
            if mean is not None and square is not None:
                moments = moments_of(mean, square, options["betas"], self._taken(), options["eps"])
        return Kept(buffer, moments, None, row["weight_decay"] if self.decoupled else 0.0)

    def adam(self, parameters: Mapping[str, nn.Parameter]) -> AdamState | None:
        """What Adam keeps of these, where it is, on the CPU; None if of some there is nothing, or of another type."""
        means, squares = (self._all(key) for key in self._moments)
        found = [*means.items(), *squares.items()]
        if len(found) < 2 * len(parameters) or any(x.dtype != parameters[name].dtype for name, x in found):
            return None
        options, taken = self._group, float(self._taken())
        mean, square = ([of[name] for name in parameters] for of in (means, squares))
        return AdamState(mean, square, options["betas"], options["eps"], taken)

    @property
    def _moments(self) -> tuple[str, str]:
        return "exp_avg", "max_exp_avg_sq" if self._group.get("amsgrad") else "exp_avg_sq"

    def _taken(self) -> float | Tensor:
        count = next(s["step"] for s in map(self._state, self._held) if "step" in s)
        on_device = isinstance(count, Tensor) and count.is_cuda
        return count.double().clamp(min=1) if on_device else max(1.0, float(count))

    def _all(self, key: str) -> dict[str, Tensor]:
        """What optimisers keep under a key, by parameter."""
        found = {name: self._state(name).get(key) for name in self._held}
        return {name: x for name, x in found.items() if isinstance(x, Tensor)}

    @property
    def taken_before(self) -> int | None:
        """Steps that were taken before tracking, as far as the optimisers tell; None if they have taken none."""
        states = [state for state in map(self._state, self._held) if state]
        if not states:
            return None
        return int(max(float(state.get("step", 0)) for state in states))

    def description(self) -> dict[str, object]:
        """What the record says of it, see `neuralmech.record`."""
        used = list(dict.fromkeys(self.rules.values())) if self.rules else [self.name]
        number = [self._labels.index(label) if self.rules else self._base for label in used]
        betas = [self._betas[i] for i in number] if len(set(self._betas)) > 1 else []
        parts = [self._kinds[i] for i in number]
        own = {} if self.has_sgds_laws else {"options": numbers_of(self._group)}
        rounds = bool(self._rounds)
        return {"name": self.name, "decoupled": self.decoupled, "parts": parts, "rounds_decay": rounds,
                "momenta": betas, **own}  # fmt: skip

    def config(self) -> dict[str, object]:
        """The part ``optim`` of a record's config."""
        options = self.members[self._base].options()
        polar = {"polar": "newton"} if "muon" in self._kinds else {}
        return {"name": self.name, **options._asdict(), **numbers_of(self._group), **polar}


def _named(optimizer: Optimizer, names: Mapping[int, str]) -> list[tuple[nn.Parameter, str]]:
    return [(p, names[id(p)]) for group in optimizer.param_groups for p in group["params"] if id(p) in names]


def _usual_rate(member: Member, options: GroupOptions) -> float:
    """η of a group; of one that warms up from zero that of its scheduler."""
    group = member.optimizer.param_groups[member.group]
    return options.lr or float(group.get("initial_lr", 0.0))


def _kind(member: Member) -> str:
    name = name_of(member.optimizer, member.group)
    return "muon" if isinstance(member.optimizer, torch.optim.Muon) else name


def _again(member: Member, p: nn.Parameter, decay: float) -> Optimizer:
    """Another optimiser of the same class and options."""
    group = {k: v for k, v in member.optimizer.param_groups[member.group].items() if k != "params"}
    kind: Any = type(member.optimizer)
    takes = {name for name in inspect.signature(kind).parameters if name in group}
    return kind([p], **{name: group[name] for name in takes} | {"lr": float(group["lr"]) or 1.0, "weight_decay": decay})


def _is_decoupled(member: Member, kind: str) -> bool:
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


def _rounds_decay(member: Member, like: Tensor) -> bool:
    options = member.options()
    try:
        rate = options.lr or 1.0
        return rounds_decay(lambda p, decay: _again(member, p, decay), rate, options.weight_decay, like)
    except CANNOT:
        return False
