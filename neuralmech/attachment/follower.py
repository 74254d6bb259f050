"""Follow a training through all that may happen to it: find its symmetries, and record in parts what changes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuralmech.attachment.example import Example, LossOfOutput, adapted, only_trained, some_targets
from neuralmech.attachment.folder import attributes, last_row
from neuralmech.attachment.recording import Clock, Measured, Recording
from neuralmech.attachment.rules import ForeignRule
from neuralmech.attachment.vectors import Vectors
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from neuralmech.losses import Loss
from neuralmech.outputs import output_of
from neuralmech.record.schema import PART
from neuralmech.symmetry.group import Symmetries
from neuralmech.verification.claims import SymmetryGroup, believe
from neuralmech.verification.quick import SAMPLES, NotVerifiedError, quickly_verified

MOST_PARTS = 8  # a training that changes more often is not followed any further


@dataclass(frozen=True)
class Wanted:
    """What a user asks for, see `attach`."""

    folder: Path
    loss: LossOfOutput
    measured: Measured
    verify: bool = True
    groups: Sequence[SymmetryGroup] = ()
    resume: bool = False


@dataclass
class Spent:
    """Seconds of tracking in steps, and of all from the first step on.

    Those of discovery, and of the first step of a part, for which kernels are compiled, are in neither.
    """

    tracking: float = 0.0
    since: float | None = None
    besides: float = field(default=0.0)

    @property
    def share(self) -> float:
        """Of tracking in the time of the loop without it."""
        if self.since is None:
            return 0.0
        rest = perf_counter() - self.since - self.besides - self.tracking
        return self.tracking / rest if rest > 0 else 0.0


class Follower:
    """Is told of steps (see `StepHooks`) and records them.

    Attributes
    ----------
    symmetries
        Of the parameters that are trained now; None until they were found.
    samples
        Seen by the model since the last step.
    spent
        Time.
    taken, rows
        Steps since the beginning, and rows of the records that are closed.
    is_over
        Whether nothing more is recorded.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], wanted: Wanted) -> None:
        self._model, self._optimizers, self._wanted = model, optimizers, wanted
        self.example: Example | None = None
        self.symmetries: Symmetries | None = None
        self.samples, self.spent, self.rows, self.taken = 0, Spent(), 0, 0
        self._forwarded = False
        self._clock, self._parts = Clock(), 0
        self._recording: Recording | None = None
        self._known: tuple[Any, ...] = ()
        self._pending: list[dict[str, Any]] = []  # logged of a step that is yet to be begun
        self._early: dict[str, Tensor] | None = None  # θ_k, where nothing is known yet
        self.is_over = self._has_warned = self._is_new = False

    def see(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The model is called, in training."""
        self._forwarded = True
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        self.samples += _samples(tensors)
        if self.example is None and tensors:
            self.example = Example.of_call(args, kwargs)

    @property
    def _usual_samples(self) -> int:
        """Those of the example, where the model is called in a way that nobody sees."""
        return 0 if self.example is None else _samples(self.example.tensors)

    @property
    def has_begun(self) -> bool:
        """Whether a record was begun."""
        return self._parts > 0

    def find(self) -> Symmetries:
        """Find the symmetries for the example, of what the optimisers train."""
        assert self.example is not None
        trained = self._trained()
        if not trained:
            raise UserError("attach: the optimizer trains no parameter of this model; give the model that it trains")
        if self.symmetries is None:
            with only_trained(self._model, set(trained)):
                self.symmetries = self._found(self.example)
        return self.symmetries

    def _found(self, example: Example) -> Symmetries:
        wanted = self._wanted
        model, loss = adapted(self._model, example, wanted.loss)
        targets = some_targets(model, example.tensors, loss)
        if wanted.groups:
            return believe(model, wanted.groups, example.tensors, targets, loss)
        found = find_symmetries(model, example.tensors, loss, targets)
        for family in wanted.measured.families or ():
            if family not in found.families:
                there = ", ".join(found.families) or "none"
                raise UserError(f"families={family}: this model has no such charges; it has {there}")
        return _holding(model, example, targets, found, loss) if wanted.verify else found

    def _trained(self) -> dict[str, nn.Parameter]:
        """Parameters that the optimisers move."""
        held = {id(p) for o in self._optimizers for group in o.param_groups for p in group["params"]}
        return {name: p for name, p in self._model.named_parameters() if id(p) in held and p.requires_grad}

    def _structure(self) -> tuple[Any, ...]:
        """What must stay as it is within a part: which parameters each group has, and which of them are trained."""
        groups = [group["params"] for o in self._optimizers for group in o.param_groups]
        return tuple(tuple((id(p), p.requires_grad) for p in group) for group in groups)

    def begin(self) -> None:
        """A step is about to be taken."""
        start = perf_counter()
        if self.spent.since is None:
            self.spent.since = start
        if self.is_over:
            return
        if self.example is None:  # the model may be called within the step, by its closure
            self._early = {name: p.detach().clone() for name, p in self._trained().items()}
            return
        self._begin(start)

    def _begin(self, start: float) -> None:
        structure, row = self._structure(), None
        if self._recording is not None and structure == self._known:
            row = self._recording.rule.row()
        if row is None:
            row = self._begin_part(structure)
            self.spent.besides += perf_counter() - start
            start = perf_counter()
        if self._recording is None:
            return
        vectors = self._recording.vectors
        if vectors.parameters[0].device != vectors.device:
            self._recording.move(vectors := Vectors(self._trained()))
        early, self._early = self._early, None
        before = None if early is None else [early[name] for name in vectors.layout.offsets]
        self._recording.begin(row, self.samples, before)
        for values in self._pending:
            self._recording.log(values, of_coming=True)
        self._pending = []
        self.spent.tracking += perf_counter() - start

    def _begin_part(self, structure: tuple[Any, ...]) -> dict[str, float]:
        """Something changed: close the record, and begin one of what is trained from now on."""
        self._end_part("complete" if self._parts else "")
        if self._parts == MOST_PARTS:
            self.is_over = True
            warnings.warn(
                f"neuralmech: what is trained, or how learning rates of groups relate, changed {MOST_PARTS} times; "
                "nothing more is recorded. Attach with a scheduler that changes all groups alike.",
                stacklevel=2,
            )
            return {}
        is_first, self._known = self._parts == 0, structure
        if not is_first:
            self.symmetries = None
        symmetries, trained = self.find(), self._trained()
        self._parts += 1
        vectors = Vectors(trained)
        names = {id(p): name for name, p in trained.items()}
        rule = ForeignRule(self._optimizers, names, vectors.parameters[0])
        extends = is_first and self._wanted.resume
        self._set_clock(rule, is_first=is_first, extends=extends)
        folder = self._wanted.folder if is_first else self._wanted.folder / f"{PART}{self._parts}"
        recording = Recording(folder, vectors, rule, symmetries, self._wanted.measured, self._clock)
        made_of = attributes(self._model, rule, self._wanted.measured.every, self._parts, vectors.parameters[0])
        recording.open(made_of, extend=extends)
        self._recording, self._is_new = recording, True
        row = rule.row()
        assert row is not None
        return row

    def _set_clock(self, rule: ForeignRule, *, is_first: bool, extends: bool) -> None:
        clock, taken = self._clock, rule.taken_before
        if extends and (last := last_row(self._wanted.folder)):
            clock.step = max(int(last["step"]) + 1, taken or 0)
            clock.time, clock.segment = last["time"] + last["lr"], int(last["segment"]) + 1
        elif is_first and taken is not None:  # in the middle of a training
            clock.step, clock.segment = taken, 1
        elif not is_first:
            clock.segment += 1

    def gradient(self, optimizer: Optimizer) -> None:
        """An optimiser is about to use its gradients."""
        start = perf_counter()
        if self._early is not None and self.example is not None:
            self._begin(start)
            start = perf_counter()
        if self._recording is not None:
            self._recording.gradient(optimizer, self.samples or self._usual_samples)
        self.spent.tracking += perf_counter() - start

    def end(self) -> None:
        """The step was taken."""
        start = perf_counter()
        self.samples, self._forwarded, self.taken = 0, False, self.taken + 1
        if self._early is not None:
            self._warn_of_no_call()
        self._pending = []
        if self._recording is not None:
            self._recording.end()
        if self._is_new:
            self._is_new, self.spent.besides = False, self.spent.besides + perf_counter() - start
        else:
            self.spent.tracking += perf_counter() - start

    def _warn_of_no_call(self) -> None:
        self._early = None
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "neuralmech: a step was taken and the model was not called with a tensor; nothing is recorded until it "
                "is. Give example_inputs, or attach the model that the loop calls.",
                stacklevel=4,
            )

    def log(self, values: dict[str, Any]) -> None:
        """Values of the step that was last, or of the coming one if the model was called since."""
        if self._recording is None and (self._forwarded or not self.taken):
            self._pending.append({name: v.detach() if isinstance(v, Tensor) else v for name, v in values.items()})
        elif self._recording is not None:
            self._recording.log(values, of_coming=self._forwarded)

    def close(self, status: str) -> None:
        """Close the record."""
        self.is_over = True
        self._end_part(status)

    def _end_part(self, status: str) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            self.rows += recording.close(status)


def _holding(model: nn.Module, example: Example, targets: Tensor, claims: Symmetries, loss: Loss) -> Symmetries:
    """The claims that hold on the example; those that fail are named and left out."""
    if not claims.families:
        return claims
    inputs, wanted = _some(example.tensors, targets)

    def value(twin: nn.Module) -> Tensor:
        with torch.enable_grad():
            return loss(output_of(twin(*inputs)), wanted)

    try:
        table = quickly_verified(model, inputs, wanted, claims, loss, value)
    except NotVerifiedError as error:
        print(f"neuralmech: claims of symmetry are not checked: {error}")
        return claims
    failed = table[~table["holds"].astype(bool)]
    sites: dict[str, set[str]] = {}
    for family, site in zip(failed["family"], failed["site"], strict=True):
        sites.setdefault(family, set()).add(site)
    if sites:
        listed = ", ".join(f"{family} {site!r}" for family, names in sites.items() for site in sorted(names))
        warnings.warn(
            f"neuralmech: claims of symmetry that do not hold are left out: {listed}; please report the model",
            stacklevel=2,
        )
    return claims.without(sites)


def _samples(tensors: Sequence[Tensor]) -> int:
    return len(tensors[0]) if tensors and tensors[0].dim() else 1


def _some(tensors: tuple[Tensor, ...], targets: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """A few samples, where all tensors have as many."""
    sizes = {len(x) if x.dim() else 0 for x in (*tensors, targets)}
    if len(sizes) > 1 or not sizes or min(sizes) <= SAMPLES:
        return tensors, targets
    return tuple(x[:SAMPLES] for x in tensors), targets[:SAMPLES]
