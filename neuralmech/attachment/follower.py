"""Follow a training through all that may happen to it: find its symmetries, and record in parts what changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from time import perf_counter
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from neuralmech.attachment.clock import Clock, Spent
from neuralmech.attachment.example import Example
from neuralmech.attachment.finding import Request, find, refuse_shards, tell
from neuralmech.attachment.folder import attributes, can_extend, last_row, next_part
from neuralmech.attachment.recording import Recording
from neuralmech.attachment.rules import ForeignRule
from neuralmech.attachment.together import Ways
from neuralmech.attachment.vectors import FlatVectors
from neuralmech.errors import UserError
from neuralmech.record.schema import PART, SOME_ROWS, RecordError
from neuralmech.symmetry.group import Symmetries
from neuralmech.words import first_line

FAR = 0.02  # of the gradient, which no eps makes, nor bfloat16
MANY = 10  # calls without a step, which no accumulation explains at the end of a training
FIRST_ROWS = 2  # of a part, for which kernels are compiled: one out of vectors, one where the tensors are
MOST_PARTS = 8  # a training of which what is trained changes more often is not followed any further
FEW = 20  # steps after one change of how rates of groups relate, within which another is taken for a schedule


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

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], wanted: Request) -> None:
        self._model, self._optimizers, self._wanted = model, optimizers, wanted
        if not self._trained():
            raise UserError("attach: the optimizer trains no parameter of this model; give the model that it trains")
        self.example: Example | None = None
        self.symmetries: Symmetries | None = None
        self.samples, self.spent, self.rows, self.taken = 0, Spent(), 0, 0
        self._forwarded, self._unused = False, 0  # calls since the last step
        self._clock, self._parts = Clock(), 0
        self._recording: Recording | None = None
        self._known: tuple[Any, ...] = ()
        self._lacking: list[bool] = []  # which parameters had no gradient when the model's were looked up
        self._models: tuple[int, ...] = ()
        self._ways: Ways | None = None  # which groups go together; None: all
        self._pending: list[dict[str, Any]] = []  # logged of a step that is yet to be begun
        self._early: dict[str, Tensor] | None = None  # θ_k, where nothing is known yet
        self.is_over = self._has_warned = False
        self._first_rows = 0  # of the part, still to come

    def see(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The model is called, in training."""
        self._forwarded, self._unused = True, self._unused + 1
        if self.example is not None and args and isinstance(args[0], Tensor) and args[0].dim():
            self.samples += len(args[0])
            return
        try:
            called = Example.of_call(args, kwargs)
        except UserError:  # without a tensor, which is said if a step is taken
            return
        self.samples += called.samples
        if self.example is None:
            self.example = called

    @property
    def _usual_samples(self) -> int:
        """Those of the example, where the model is called in a way that nobody sees."""
        return 0 if self.example is None else self.example.samples

    @property
    def has_begun(self) -> bool:
        """Whether a record was begun."""
        return self._parts > 0

    def find(self) -> Symmetries:
        """Find the symmetries for the example, of what the optimisers train."""
        assert self.example is not None
        if self.symmetries is None:
            self.symmetries = find(self._model, set(self._trained()), self.example, self._wanted)
        return self.symmetries

    def _trained(self) -> dict[str, nn.Parameter]:
        """Parameters that the optimisers move."""
        held = {id(p) for o in self._optimizers for group in o.param_groups for p in group["params"]}
        return {name: p for name, p in self._model.named_parameters() if id(p) in held and p.requires_grad}

    def _structure(self) -> tuple[Any, ...]:
        """What must stay as it is within a part: which parameters each group has, and which of them the model trains.

        The model may have got others in their place (``load_state_dict(…, assign=True)``), which no gradient reaches
        the optimiser's then. To go through all of its modules takes time: it is done where gradients begin or cease to
        be there, and once in a while.
        """
        groups = [group["params"] for o in self._optimizers for group in o.param_groups]
        held = groups[0] if len(groups) == 1 else list(chain.from_iterable(groups))
        lacking = [p.grad is None for p in held]
        if lacking != self._lacking or self.taken % SOME_ROWS == 0:
            self._lacking, self._models = lacking, tuple(map(id, self._trained().values()))
        return tuple(map(len, groups)), [(id(p), p.requires_grad, p.shape) for p in held], self._models

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
        if vectors.have_moved:
            self._recording.move(FlatVectors(self._trained()))
        early, self._early = self._early, None
        self._safely(self._recording.begin, row, self.samples, early)
        if self._recording is None:
            return
        for values in self._pending:
            self._recording.log(values, of_coming=True)
        self._pending = []
        self.spent.tracking += perf_counter() - start

    def _safely(self, act: Callable[..., object], *given: Any) -> None:
        """What cannot be written ends the tracking, not the training."""
        try:
            act(*given)
        except (OSError, RecordError) as error:
            recording, self._recording, self.is_over = self._recording, None, True
            if recording is not None:
                recording.abandon()
            tell(f"nothing more is recorded: {first_line(error)}")

    def _begin_part(self, structure: tuple[Any, ...]) -> dict[str, float]:
        """Something changed: close the record, and begin one of what is trained from now on."""
        before, is_first = self._recording, self._parts == 0
        is_same = before is not None and structure == self._known
        if before is not None and is_same:  # rates have changed: once, or do they go on to?
            soon = self._parts > 1 and before.steps < FEW  # twice
            often = soon or before.rule.apart or self._parts >= MOST_PARTS - 1
            self._ways = before.rule.ways() if often else self._ways
        elif not is_first:
            self.symmetries = None
        self._end_part("" if is_first else "complete")
        if self._parts >= MOST_PARTS and not is_same:
            self.is_over = True
            tell(f"what is trained changed {MOST_PARTS} times; nothing more is recorded")
            return {}
        if not self._trained():
            self.is_over = True
            tell("the optimizer trains no parameter of the model any more; nothing more is recorded. Make another one")
            return {}
        self._known = structure
        recording = self._new_recording(is_first=is_first)
        if recording.rule.apart and (before is None or not before.rule.apart):
            across = recording.across
            lost = f"; of {across:,} charges that lie across them no law is known" if across else ""
            tell(f"groups of the optimizer have schedules of their own, which are followed one by one{lost}")
        self._recording, self._first_rows = recording, FIRST_ROWS
        row = recording.rule.row()
        assert row is not None
        return row

    def _new_recording(self, *, is_first: bool) -> Recording:
        """A record of what is trained now, in a folder of its own behind the first."""
        refuse_shards(self._model)  # it may have been cut since symmetries were found
        symmetries, trained = self.find(), self._trained()
        self._parts += 1
        vectors = FlatVectors(trained)
        names = {id(p): name for name, p in trained.items()}
        one = next(iter(trained.values()))
        rule = ForeignRule(self._optimizers, names, one, self._ways)
        whole, resumes = self._wanted.folder, is_first and self._wanted.resume
        self._set_clock(rule, is_first=is_first, extends=resumes)
        extends = resumes and can_extend(whole, rule)
        part = 1 if extends or (is_first and not resumes) else next_part(whole)
        folder = whole if part == 1 else whole / f"{PART}{part}"
        recording = Recording(folder, vectors, rule, symmetries, self._wanted.measured, self._clock)
        recording.open(attributes(self._model, rule, self._wanted.measured.every, part, one), extend=extends)
        return recording

    def _set_clock(self, rule: ForeignRule, *, is_first: bool, extends: bool) -> None:
        clock, taken = self._clock, rule.taken_before
        if extends and (last := last_row(self._wanted.folder)):
            clock.step = max(int(last["step"]) + 1, taken or 0)
            clock.time, clock.segment = last["time"] + last["lr"], int(last["segment"]) + 1
        elif is_first and taken is not None:  # in the middle of a training
            clock.step, clock.segment = taken, 1
        elif not is_first:
            clock.segment += 1

    def gradient(self, optimizer: Optimizer, *, may_change: bool = False) -> None:
        """An optimiser is about to use its gradients, which may change before it is done."""
        start = perf_counter()
        if self._early is not None and self.example is not None:
            self._begin(start)
            start = perf_counter()
        if self._recording is not None:
            seen = self.samples or self._usual_samples
            self._recording.gradient(optimizer, seen, may_change=may_change)
        self.spent.tracking += perf_counter() - start

    def end(self) -> None:
        """The step was taken."""
        start = perf_counter()
        self.samples, self._forwarded, self.taken, self._unused = 0, False, self.taken + 1, 0
        if self._early is not None:
            self._warn_of_no_call()
        self._pending = []
        if self._recording is not None:
            self._safely(self._recording.end)
        if self._recording is None or not self._first_rows:
            self.spent.tracking += perf_counter() - start
            return
        if self._first_rows == FIRST_ROWS:
            self._see_leaning(self._recording)
        self._first_rows -= self._recording.was_recorded
        self.spent.besides += perf_counter() - start

    def _see_leaning(self, recording: Recording) -> None:
        """Warn if the first gradient is not orthogonal to what was found: then it is that of another loss."""
        if not self._wanted.verify or not recording.has_row:
            return
        far = {name: lean for name, lean in recording.leaning().items() if lean > FAR}
        if far:
            listed = ", ".join(f"{family} {site!r} ({lean:.2f})" for (family, site), lean in list(far.items())[:3])
            more = f" and {len(far) - 3} more" if len(far) > 3 else ""
            tell(
                f"the gradient of the first step breaks symmetries that were found: {listed}{more}, as shares of "
                "its length. Is loss= that of your loop, the model in training mode and all that the loop calls? "
                "Gradients that are cut entry by entry, or taken elsewhere, do so too"
            )

    def _warn_of_no_call(self) -> None:
        self._early = None
        if not self._has_warned:
            self._has_warned = True
            tell(
                "a step was taken and the model was not called with a tensor; nothing is recorded until it is. Give "
                "example_inputs, or attach the model that the loop calls."
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
        if self.taken and self._unused >= MANY:
            tell(
                f"the model was called {self._unused} times in training since the last step of the optimizer that was "
                "attached; was another one made?"
            )
        self._safely(self._end_part, status)

    def _end_part(self, status: str) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            self.rows += recording.close(status)
