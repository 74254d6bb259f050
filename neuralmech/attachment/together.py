"""Groups of parameters whose hyperparameters keep their relation, and how those that do not are told apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from neuralmech.attachment.members import GroupOptions, Member, kind_of, usual_rate

SAME = 1e-9  # relative: by which schedulers round the learning rates of groups apart

Ways = Mapping[tuple[int, int], int]  # of each optimiser's groups, which go together


class GroupsTogether:
    """Groups of which one gives η and λ; the others' are relative to it, which a scheduler must not change.

    Attributes
    ----------
    members
        The groups.
    base, decaying
        Numbers of the first with the largest learning rate, and of the first with weight decay.
    ratios, factors
        η and λ of each relative to these.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self._start = [member.options() for member in self.members]
        rates = [usual_rate(member) for member in self.members]
        self.base = max(range(len(rates)), key=lambda i: rates[i])
        largest = rates[self.base] or 1.0
        self.ratios = [rate / largest if rate else 1.0 for rate in rates]
        self.decaying = next((i for i, o in enumerate(self._start) if o.weight_decay), self.base)
        decay = self._start[self.decaying].weight_decay
        self.factors = [o.weight_decay / decay if decay else 1.0 for o in self._start]
        self._kinds = [kind_of(member) for member in self.members]

    @property
    def momenta(self) -> list[float]:
        """β of each at the beginning."""
        return [options.momentum for options in self._start]

    def now(self, read: Collection[str]) -> GroupOptions | None:
        """η, λ and the rest of the base; None if they are not what they were in relation.

        `read` are the kinds of rules whose momentum, dampening and kind of momentum matter.
        """
        found = [member.options() for member in self.members]
        base, decay = found[self.base], found[self.decaying].weight_decay
        differ = len(set(self.momenta)) > 1
        for options, start, ratio, factor, kind in zip(
            found, self._start, self.ratios, self.factors, self._kinds, strict=True
        ):
            keeps = _near(options.lr, ratio * base.lr) and _near(options.weight_decay, factor * decay)
            if not keeps or (kind in read and options[2:] != (start if differ else base)[2:]):
                return None
        return base._replace(weight_decay=decay)

    def apart(self) -> list[list[int]]:
        """Numbers of the groups that still keep their relation to each other."""
        found: list[tuple[tuple[Any, ...], list[int]]] = []
        for i, member in enumerate(self.members):
            options, factor = member.options(), self.factors[i]
            decay = options.weight_decay / factor if factor else options.weight_decay
            mine = self._kinds[i], options[2:], options.lr / self.ratios[i], decay, bool(factor)
            like = next((numbers for of, numbers in found if _alike(of, mine)), None)
            if like is None:
                found.append((mine, [i]))
            else:
                like.append(i)
        return [numbers for _, numbers in found]


def ways_apart(parts: Sequence[GroupsTogether]) -> dict[tuple[int, int], int]:
    """Which groups go together from now on: of one part those that still do, of several each by itself."""
    split = parts[0].apart() if len(parts) == 1 else []
    if len(split) > 1:
        return {key_of(parts[0].members[i]): number for number, of in enumerate(split) for i in of}
    every = [member for part in parts for member in part.members]
    return {key_of(member): number for number, member in enumerate(every)}


def key_of(member: Member) -> tuple[int, int]:
    """What tells a group from others, as long as its optimiser lives."""
    return id(member.optimizer), member.group


def grouped(members: Sequence[Member], ways: Ways | None) -> list[GroupsTogether]:
    """Groups by the way that they go; those that nobody knows by themselves."""
    if ways is None:
        return [GroupsTogether(members)]
    of: dict[tuple[int, int] | int, list[Member]] = {}
    for member in members:
        of.setdefault(ways.get(key_of(member), key_of(member)), []).append(member)
    return [GroupsTogether(found) for found in of.values()]


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= SAME * max(abs(a), abs(b))


def _alike(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return a[:2] == b[:2] and _near(a[2], b[2]) and _near(a[3], b[3]) and a[4] == b[4]
