"""Measure the steps of optimisers that somebody else calls: out of flat copies, or where their tensors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from neuralmech.attachment.rules import ForeignRule
from neuralmech.attachment.vectors import FlatVectors
from neuralmech.charges.cpu_same import Same
from neuralmech.charges.step import Mover, Taken, rate_of
from neuralmech.track import Tracker
from neuralmech.track.block import Seen

LEAVE_GRADIENTS = (SGD, Adam, AdamW)  # as they are, but where they go through many tensors at once


class Measuring(Protocol):
    """Sees a step from before it is taken until after, and records its row.

    Attributes
    ----------
    moved
        How often something else than steps moved the parameters, a number on the device.
    """

    moved: Tensor

    @property
    def has_all_gradients(self) -> bool:
        """Whether each parameter had one in the last step."""
        ...

    def begin(self, before: Mapping[str, Float[Tensor, "*shape"]], *, follows: bool) -> None:
        """See θ_k; `follows`: the step before was measured, too."""
        ...

    def gradient(self, optimizer: Optimizer, *, may_change: bool) -> None:
        """See the gradients that an optimiser is about to use; those of a closure may change before it is done."""
        ...

    def end(self, row: Mapping[str, float], loss: Float[Tensor, ""], seen: Seen, *, norms: bool) -> bool:
        """The step was taken: record its row; False if what it needs is gone."""
        ...


class Copying:
    """By flat copies of θ_k, the gradient and θ_{k+1}, side by side: on any device, of any rule."""

    def __init__(self, vectors: FlatVectors, rule: ForeignRule, tracker: Tracker) -> None:
        self._vectors, self._rule, self._tracker = vectors, rule, tracker
        vectors.lend("before", tracker.room())
        self._names = {id(p): name for name, p in vectors.parameters.items()}
        self.moved = torch.zeros((), dtype=torch.float64, device=vectors.device)
        self._with_gradient: set[str] = set()

    @property
    def has_all_gradients(self) -> bool:
        """Whether each parameter had one in the last step."""
        return len(self._with_gradient) == len(self._vectors.parameters)

    def begin(self, before: Mapping[str, Float[Tensor, "*shape"]], *, follows: bool) -> None:
        """Copy θ_k; where it is not what the last step left, something else moved it."""
        self._tracker.room()  # which was lent
        theta = self._vectors.gather("before", before)
        if follows:
            self.moved += (theta != self._vectors.room("after")).any()
        self._with_gradient.clear()
        if self._rule.is_several:  # one that takes no step with the others has no gradient
            self._vectors.room("gradient").zero_()

    def gradient(self, optimizer: Optimizer, *, may_change: bool) -> None:
        """Copy them; what GradScaler leaves to fused optimisers is done here, too."""
        unscale, overflow = scaled(optimizer)
        views = self.copy(self._gradients(optimizer))
        if unscale is not None:
            torch._foreach_div_(views, unscale)
        if overflow is not None:
            for view in views:
                view.masked_fill_(overflow > 0, 0.0)

    def _gradients(self, optimizer: Optimizer) -> dict[str, Tensor | None]:
        held = (p for group in optimizer.param_groups for p in group["params"] if id(p) in self._names)
        return {self._names[id(p)]: p.grad for p in held}

    def copy(self, gradients: Mapping[str, Float[Tensor, "*shape"] | None]) -> list[Float[Tensor, "*shape"]]:
        """Copy some gradients; returns where to."""
        self._with_gradient |= {name for name, g in gradients.items() if g is not None}
        return self._vectors.put("gradient", gradients)

    def end(self, row: Mapping[str, float], loss: Float[Tensor, ""], seen: Seen, *, norms: bool) -> bool:
        """Copy θ_{k+1}, and sum all of them up."""
        after, gradient = self._vectors.gather("after"), self._vectors.room("gradient")
        kept = self._rule.kept(row, self._vectors.by_name)
        step = self._tracker.step(after, gradient, rate_of(row["lr"]), kept)
        self._tracker.after(step, loss, row, seen, norms=norms)
        return True


class InPlace:
    """Where the tensors are, on the CPU: the pass that sums them up copies θ_{k+1}, which is the next step's θ_k.

    Rows that need the vectors of a whole step, and gradients that may change before it is over, are left to `Copying`.
    """

    def __init__(self, copying: Copying, vectors: FlatVectors, rule: ForeignRule, tracker: Tracker, by: Mover) -> None:
        self._copying, self._vectors, self._rule, self._tracker, self._by = copying, vectors, rule, tracker, by
        self._theta = vectors.views("after")
        self._parameters = list(vectors.parameters.values())  # those of the one optimiser
        self._same = Same(vectors.layout, vectors.room("after"))
        self._nothing: dict[int, Tensor] = {}  # zeros for parameters without a gradient
        self._found: list[Tensor | None] | None = None  # gradients of the present step
        self._versions: list[int] = []
        self._has_all: bool | None = None  # gradients; None where they were copied
        self._is_usual, self._is_first = True, True  # the first row is to be had as vectors
        self._are_alike = False  # the parameters, in the present step, so that they can be read where they are
        self.moved = copying.moved

    @property
    def has_all_gradients(self) -> bool:
        """Whether each parameter had one in the last step."""
        return self._copying.has_all_gradients if self._has_all is None else self._has_all

    def begin(self, before: Mapping[str, Float[Tensor, "*shape"]], *, follows: bool) -> None:
        """See whether the parameters are where the last step left them."""
        self._are_alike = self._vectors.are_alike
        if not follows or not self._are_left(before):
            self._vectors.gather("after", before)
            self.moved += follows
        self._found = self._has_all = None

    def _are_left(self, before: Mapping[str, Tensor]) -> bool:
        """Whether these are what the last step left."""
        if before is self._vectors.parameters and self._are_alike and self._same.bits(self._parameters):
            return True
        return all(theta.equal(before[name].to(theta.dtype)) for name, theta in self._theta.items())

    def gradient(self, optimizer: Optimizer, *, may_change: bool) -> None:
        """Remember where they are."""
        found = [p.grad for p in self._parameters]
        is_readable = self._is_usual and self._are_alike  # they may be of another type by now
        is_readable = is_readable and self._vectors.can_read(g for g in found if g is not None)
        if may_change or not is_readable or scaled(optimizer) != (None, None):
            self._copying.begin(self._theta, follows=False)
            self._copying.gradient(optimizer, may_change=may_change)
            return
        self._found, self._versions = found, _versions(found)

    def end(self, row: Mapping[str, float], loss: Float[Tensor, ""], seen: Seen, *, norms: bool) -> bool:
        """Sum the step up, and be where it leads."""
        found, self._found = self._found, None  # for else they would outlive the loop's zero_grad
        if found is None:
            return self._copying.end(row, loss, seen, norms=norms)
        self._has_all = all(g is not None for g in found)
        if self._versions != _versions(found):  # another hook clears them, say; they are copied from now on
            self._is_usual = False
            return False
        adam = self._rule.adam(self._vectors.parameters) if self._rule.is_adams else None
        leans = norms and self._tracker.has_leaning
        if leans or self._is_first or (self._rule.is_adams and adam is None):
            self._is_first = False
            self._copying.begin(self._theta, follows=False)
            self._copying.copy(dict(zip(self._vectors.parameters, found, strict=True)))
            return self._copying.end(row, loss, seen, norms=norms)
        gradients = [self._zeros(n) if g is None else g for n, g in enumerate(found)]
        taken = Taken(self._parameters, gradients, row["lr"], adam)
        self._tracker.advance(self._by, taken, float(loss), row, seen, norms=norms)
        return True

    def _zeros(self, number: int) -> Tensor:
        if number not in self._nothing:
            self._nothing[number] = torch.zeros_like(self._parameters[number])
        return self._nothing[number]


def measuring(vectors: FlatVectors, rule: ForeignRule, tracker: Tracker) -> Measuring:
    """What measures the steps of a rule: in place where that is possible."""
    copying = Copying(vectors, rule, tracker)
    if not vectors.are_alike or rule.is_several or not _leaves_gradients(rule.members[0].optimizer):
        return copying
    by = tracker.follower(vectors.room("after"))
    return copying if by is None else InPlace(copying, vectors, rule, tracker, by)


def scaled(optimizer: Optimizer) -> tuple[Float[Tensor, ""] | None, Float[Tensor, ""] | None]:
    """What GradScaler leaves to fused optimisers: to unscale, and to leave out a step that is not finite."""
    return getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)


def _leaves_gradients(optimizer: Optimizer) -> bool:
    """Whether its gradients are after the step what they were before."""
    return type(optimizer) in LEAVE_GRADIENTS and not any(group.get("foreach") for group in optimizer.param_groups)


def _versions(tensors: Sequence[Tensor | None]) -> list[int]:
    return [0 if x is None else x._version for x in tensors]
