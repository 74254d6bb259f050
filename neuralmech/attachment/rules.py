"""The learning rules of optimisers that somebody else made: hyperparameters of a step, and what they keep of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from neuralmech.attachment.members import GroupOptions, Member, is_decoupled, kind_of, rounds_decay_of
from neuralmech.attachment.together import Ways, grouped, ways_apart
from neuralmech.charges.step import AdamState, Kept, moments_of
from neuralmech.record.schema import RULE_COLUMNS
from neuralmech.rules import numbers_of, signals_of

ADAMS, SGDS = frozenset({"adam", "adamw"}), frozenset({"sgd", "sgdw"})

Flat = Callable[[str, Mapping[str, Tensor]], Tensor | None]  # one tensor of those of all parameters, None if some lack


class ForeignRule:
    """What is known of optimisers and of how they move the parameters that are tracked.

    Of groups that go together the first with the largest learning rate gives η and λ; the others' are relative to it.
    Those that go ways of their own are rules of their own, and η is the largest of theirs.

    Parameters
    ----------
    optimizers
        That move the parameters.
    names
        Of the parameters, by their identity.
    like
        One of them.
    ways
        Which groups go together; by default all, as far as laws can tell what moves them.

    Attributes
    ----------
    name
        Whose laws hold; of several rules that of the first group.
    ratios, decays
        r and κ of each parameter; None where they are one for all.
    rules
        Name of each parameter's rule; None where it is one for all.
    apart
        Names of the rules that have schedules of their own, in the order of their numbers; empty where none has.
    own
        Hyperparameters under each of these, in the order of `RULE_COLUMNS` but for the time, as `row` found them.
    is_adams
        Whether all are Adam, with moments of one age and kind.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        names: Mapping[int, str],
        like: Float[Tensor, "*shape"],
        ways: Ways | None = None,
    ) -> None:
        found = [
            Member(optimizer, number, tuple(names[id(p)] for p in group["params"] if id(p) in names))
            for optimizer in optimizers
            for number, group in enumerate(optimizer.param_groups)
        ]
        self.members = [member for member in found if member.names]
        self._held = {name: p for o in optimizers for p, name in _named(o, names)}
        self._of = {name: member for member in self.members for name in member.names}
        self._kinds = {member: kind_of(member) for member in self.members}
        self.is_adams = set(self._kinds.values()) <= ADAMS and self._ages_agree() and self._moments_agree()
        self._parts = grouped(self.members, ways)
        if any(part.now(self._read) is None for part in self._parts):  # SGD with momenta of two kinds, say
            self._parts = grouped(self.members, ways_apart(self._parts))
        self.own = torch.zeros(len(RULE_COLUMNS) - 1, 0, dtype=torch.float64)
        self._base = self._parts[0].members[self._parts[0].base]
        self.name = self._kinds[self._base]
        self._tell_decay(like)
        self._tell_rules([name for name in names.values() if name in self._of])
        self._has_buffer = "drive_buffer" in self.signals
        self._given: list[tuple[Any, ...]] = []
        self._row: dict[str, float] | None = None

    def _tell_decay(self, like: Tensor) -> None:
        """Whether weight decay is decoupled; where it is by some rules only, it is part of what they do."""
        apart = {member: is_decoupled(member, kind) for member, kind in self._kinds.items()}
        if len(set(apart.values())) > 1:
            self._kinds = {m: f"{kind} (decoupled)" if apart[m] else kind for m, kind in self._kinds.items()}
        one = len(self._parts) == 1 or self.is_adams  # else it would have to be of one λ
        self.decoupled = all(apart.values()) and one
        first = self._parts[0]
        self._rounds = self.decoupled and rounds_decay_of(first.members[first.decaying], like)

    def _tell_rules(self, names: Sequence[str]) -> None:
        """Which rule moves each parameter, and learning rates and decays relative to its."""
        several = len(self._parts) > 1
        momenta = {m: beta for part in self._parts for m, beta in zip(part.members, part.momenta, strict=True)}
        differ = not several and len(set(momenta.values())) > 1
        label = {m: f"{self._kinds[m]} {beta!r}" if differ else self._kinds[m] for m, beta in momenta.items()}
        if several:
            label = {m: f"{self._kinds[m]} {n}" for n, part in enumerate(self._parts, 1) for m in part.members}
        rules = {name: label[self._of[name]] for name in names}
        used = tuple(dict.fromkeys(rules.values()))
        self.rules, self.apart = rules if len(used) > 1 else None, used if several else ()
        first = {label[member]: member for member in reversed(self.members)}
        self._numbered = [first[name] for name in used] if self.rules else [self._base]
        self._betas = [momenta[member] for member in self._numbered] if differ else []
        ratios = {m: r for part in self._parts for m, r in zip(part.members, part.ratios, strict=True)}
        factors = {m: f for part in self._parts for m, f in zip(part.members, part.factors, strict=True)}
        self.ratios = _by_name(ratios)
        self.decays = _by_name({member: r * factors[member] for member, r in ratios.items()})

    @property
    def _read(self) -> frozenset[str]:
        """Kinds of rules of which laws read the momentum."""
        return SGDS | ADAMS if self.is_adams else SGDS

    @property
    def is_several(self) -> bool:
        """Whether there is more than one optimiser."""
        return any(member.optimizer is not self.members[0].optimizer for member in self.members)

    @property
    def has_sgds_laws(self) -> bool:
        """Whether all are SGD."""
        return set(self._kinds.values()) <= SGDS

    @property
    def _group(self) -> dict[str, Any]:
        """The group whose η and β are the run's."""
        return self._base.optimizer.param_groups[self._base.group]

    def _ages_agree(self) -> bool:
        counts = {float(s["step"]) for s in map(self._state, self._held) if "step" in s}
        return len(counts) <= 1

    def _moments_agree(self) -> bool:
        """Whether Adam's groups share what the metric is made of."""
        groups = [member.optimizer.param_groups[member.group] for member in self.members]
        return len({(*map(float, g["betas"]), float(g["eps"]), bool(g.get("amsgrad"))) for g in groups}) == 1

    def _state(self, name: str) -> Mapping[str, Any]:
        return self._of[name].optimizer.state.get(self._held[name], {})

    @property
    def signals(self) -> tuple[str, ...]:
        """What its laws and accounts need to have recorded besides the usual."""
        nesterov, differs = any(member.options().nesterov for member in self.members), self.decays is not None
        kinds, decoupled = self._kinds.values(), self.decoupled
        return signals_of(kinds, nesterov=nesterov, decoupled=decoupled, differs=differs, metric=self.is_adams)

    def row(self) -> dict[str, float] | None:
        """Hyperparameters of the coming step, as ``/steps`` has them; None if they are not what they were in relation.

        The momentum is that of the group whose η it is; of rules without a law to read it, 0.
        """
        given = [member.given() for member in self.members]
        if given != self._given:
            self._given, self._row = given, self._read_groups()
        return self._row

    def _read_groups(self) -> dict[str, float] | None:
        """A row of what the groups have now."""
        if self.is_adams and not self._moments_agree():
            return None
        rows: dict[Member, dict[str, float]] = {}
        for part in self._parts:
            options = part.now(self._read)
            if options is None:
                return None
            rows |= dict.fromkeys(part.members, self._row_of(options))
        if self.apart:
            columns = [[rows[member][name] for member in self._numbered] for name in RULE_COLUMNS[1:]]
            self.own = torch.tensor(columns, dtype=torch.float64)
        return {**rows[self._base], "lr": max(row["lr"] for row in rows.values())}

    def _row_of(self, options: GroupOptions) -> dict[str, float]:
        has_law = self.has_sgds_laws or self.is_adams
        return {
            "lr": options.lr,
            "momentum": options.momentum if has_law else 0.0,
            "dampening": options.dampening if self.has_sgds_laws else 0.0,
            "weight_decay": options.weight_decay,
            "nesterov": options.nesterov and self.has_sgds_laws,
            "decoupled": self.decoupled,
        }

    def ways(self) -> Ways:
        """Which groups go together from now on, where they do not keep their relation."""
        return ways_apart(self._parts)

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
        own = {} if self.has_sgds_laws else {"options": numbers_of(self._group)}
        parts, apart = [self._kinds[member] for member in self._numbered], {"apart": True} if self.apart else {}
        rounds = bool(self._rounds)
        return {"name": self.name, "decoupled": self.decoupled, "parts": parts, "rounds_decay": rounds,
                "momenta": self._betas, **apart, **own}  # fmt: skip

    def config(self) -> dict[str, object]:
        """The part ``optim`` of a record's config."""
        polar = {"polar": "newton"} if "muon" in self._kinds.values() else {}
        return {"name": self.name, **self._base.options()._asdict(), **numbers_of(self._group), **polar}


def _by_name(values: Mapping[Member, float]) -> dict[str, float] | None:
    found = {name: value for member, value in values.items() for name in member.names}
    return found if any(value != 1 for value in values.values()) else None


def _named(optimizer: Optimizer, names: Mapping[int, str]) -> list[tuple[nn.Parameter, str]]:
    return [(p, names[id(p)]) for group in optimizer.param_groups for p in group["params"] if id(p) in names]
