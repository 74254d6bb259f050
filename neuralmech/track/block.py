"""A block of measured rows: buffers on the device that a record gets as a whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.record import BackgroundWriter, RecordWriter
from neuralmech.record.schema import STEP_COLUMNS

Columns = dict[str, NDArray]
NEVER = 1 << 62  # later than any step
AT_ONCE = 64  # rows of which views are made together

A = TypeVar("A", Tensor, NDArray)


class Measured(NamedTuple, Generic[A]):
    """What is measured of a step, or of many: views on the device or arrays on the host, float64."""

    ring: A  # (signals, charges)
    norms: A  # (sites,)
    loss: A
    skipped: A
    single: A  # (parameters,)
    work: A  # (2,)
    clip: A
    ascent_norm: A
    lean: A  # (sites of all families,)
    turning: A  # (signals, pairs of channels)
    sides: A  # (signals, rescale charges)
    segment: A
    rules: A  # (columns, rules)


# What a part holds until it is measured.
_UNMEASURED = Measured(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)  # type: ignore[arg-type]
# Shapes of the parts where nothing is measured but what every row has.
NOTHING = Measured((0, 0), (0,), (), (), (0,), (2,), (), (), (0,), (0, 0), (0, 0), (), (0, 0))  # type: ignore[arg-type]
OnDevice = Measured[Tensor]
OnHost = Measured[NDArray]


class Seen(NamedTuple):
    """What happened to a step's gradient and update; numbers on the device, None where nothing does.

    Attributes
    ----------
    skipped
        Steps before this one whose update was left out.
    clip
        Factor by which the gradient was shortened.
    ascent_norm
        That of the gradient at θ_k, where the rule's is taken elsewhere.
    segment
        How often something was not measured, or moved the parameters beside the steps, before this one.
    rules
        Hyperparameters under each rule, where they have schedules of their own: (columns, rules).
    """

    skipped: Tensor | None = None
    clip: Tensor | None = None
    ascent_norm: Tensor | None = None
    segment: Tensor | None = None
    rules: Tensor | None = None

    def write(self, into: OnDevice) -> None:
        """Put it into a row."""
        for name, value in zip(self._fields, self, strict=True):
            if value is not None:
                getattr(into, name).copy_(value)


class Room:
    """Room for rows: `parts` hold all of them, a `slot` one."""

    def __init__(self, rows: int, shapes: Sequence[tuple[int, ...]], device: torch.device) -> None:
        of_rows = zip(shapes, _UNMEASURED, strict=True)
        self.parts = Measured(*(torch.full((rows, *s), x, dtype=torch.float64, device=device) for s, x in of_rows))
        self._slots: list[OnDevice] = []

    def slot(self, row: int) -> OnDevice:
        """A row, of which views are kept: to make them costs a step 20 µs, or all of them a tenth of a second."""
        while row >= len(self._slots):
            first = len(self._slots)
            self._slots += map(
                Measured._make, zip(*(p[first : first + AT_ONCE].unbind() for p in self.parts), strict=True)
            )
        return self._slots[row]

    @cached_property
    def arrays(self) -> OnHost:
        """The parts as arrays, of a room on the CPU."""
        return Measured(*(part.numpy() for part in self.parts))


class RowBuffer:
    """Room for `rows` rows of some shapes, one of each part of `Measured`.

    A GPU's are copied to the host when they are full. On the CPU the record gets the room itself, and the next rows
    another one, which the record had before.

    Attributes
    ----------
    room
        Where the rows are.
    broken_at
        Step of the first row that is not finite, as far as rows were written; None if there is none.
    last_loss
        Loss of the last row written; None before the first.
    """

    def __init__(self, rows: int, shapes: Sequence[tuple[int, ...]], device: torch.device) -> None:
        self.rows = rows
        self._new_room = lambda: Room(rows, shapes, device)
        self.room = self._new_room()
        self._free: deque[Room] = deque()
        self._filled: list[dict[str, float]] = []
        self._staging = None if device.type == "cpu" else Staging(device)
        self._until = torch.full((), NEVER, dtype=torch.int64, device=device)
        self.broken_at: int | None = None
        self.last_loss: float | None = None

    def new_row(self) -> OnDevice:
        """Room for one more row, elsewhere."""
        return Measured(*(torch.full_like(p[0], x) for p, x in zip(self.room.parts, _UNMEASURED, strict=True)))

    def slot(self) -> OnDevice:
        """Where the next row goes."""
        if self._staging and not self._filled:
            self._staging.release()
        return self.room.slot(len(self._filled))

    def add(self, row: Mapping[str, float]) -> None:
        """Count the slot as filled; `row` holds its columns of ``/steps`` that the host knows."""
        self._filled.append(dict(row))

    @property
    def filled(self) -> int:
        """Slots that are filled: the row of the next one."""
        return len(self._filled)

    @property
    def is_full(self) -> bool:
        """Whether there is no slot left."""
        return len(self._filled) == self.rows

    def write(
        self,
        record: RecordWriter | BackgroundWriter,
        named: Callable[[OnHost], tuple[Columns, dict[str, Columns]]],
        *,
        cut: bool,
        until: Float[Tensor, ""] | None = None,
    ) -> None:
        """Hand the rows to a record, with `cut` up to the first that is not finite, and start again.

        Rows of the step `until`, a number on the device, and of later ones count as not finite. `named` makes columns
        of ``/steps`` of what was measured, and sorts the rest by family and signal.
        """
        if not self._filled:
            return
        rows, self._filled = self._filled, []  # first, so that no interruption can write them twice
        on_host, done = self._to_host(len(rows), until)

        def ready() -> tuple[Columns, dict[str, Columns]] | None:
            arrays, end = on_host()
            if cut and self.broken_at is not None:
                return None
            keep = self._check(rows, arrays, end, cut=cut)
            kept = Measured(*(part[:keep] for part in arrays))
            if not keep:
                return None
            of_steps, charges = named(kept)
            return {**_steps(rows[:keep], kept), **of_steps}, charges

        record.append_later(ready, done)

    def _to_host(
        self, count: int, until: Tensor | None
    ) -> tuple[Callable[[], tuple[OnHost, int]], Callable[[], object] | None]:
        """Start to bring the first rows and `until` to the host.

        Returns what waits until they are there, and what is to be called when nobody needs them any more.
        """
        if self._staging is None:
            room, self.room = self.room, self._free.popleft() if self._free else self._new_room()
            lent = Measured(*(part[:count] for part in room.arrays)), NEVER if until is None else int(until)
            return lambda: lent, lambda: self._free.append(room)
        if until is not None:  # it goes on changing; a copy does so only when the next block is written
            self._until.copy_(until)
        copies, wait = self._staging.copies([*(part[:count] for part in self.room.parts), self._until])

        def copied() -> tuple[OnHost, int]:
            wait()
            return Measured(*(part.numpy() for part in copies[:-1])), int(copies[-1])

        return copied, None

    def _check(self, rows: Sequence[Mapping[str, float]], arrays: OnHost, until: int, *, cut: bool) -> int:
        """How many rows to keep."""
        finite = min(_finite_rows(arrays.loss, arrays.ring), sum(row["step"] < until for row in rows))
        keep = finite if cut else len(rows)
        if finite < len(rows):
            self.broken_at = min(int(rows[finite]["step"]), until)
        self.last_loss = float(arrays.loss[min(keep, len(rows) - 1)])
        return keep


class Staging:
    """Copies tensors from a GPU to the host without making anyone wait who need not.

    They go into pinned memory on a stream of their own, beside the next step's forward and backward
    pass; pinned memory is PyTorch's own, which uses it again once nobody holds it and the copy is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._copied: torch.cuda.Event | None = None

    def copies(
        self, parts: Sequence[Float64[Tensor, "*shape"]]
    ) -> tuple[list[Float64[Tensor, "*shape"]], Callable[[], None]]:
        """Copies, and what waits until they are there; `parts` may change only after `release`."""
        copies = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in parts]
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for copy, part in zip(copies, parts, strict=True):
                copy.copy_(part, non_blocking=True)
        self._copied = torch.cuda.Event(blocking=True)
        self._copied.record(self._stream)
        return copies, self._copied.synchronize

    def release(self) -> None:
        """Make the device wait until the last parts are copied, before it writes to them again."""
        if self._copied is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied)
            self._copied = None


def _steps(rows: Sequence[Mapping[str, float]], arrays: OnHost) -> Columns:
    """Columns of ``/steps``: what the host knows, and what the device measured."""
    known = {n: np.array([r[n] for r in rows], dtype=d) for n, d in STEP_COLUMNS.items() if n in rows[0]}
    counted = {"skipped": arrays.skipped.astype(np.int64), "segment": arrays.segment.astype(np.int64)}
    measured = {"loss": arrays.loss, **counted}
    of_rule = {"clip": arrays.clip, "ascent_norm": arrays.ascent_norm}
    work = {"work": arrays.work[:, 0].copy(), "work_behind": arrays.work[:, 1].copy()}
    return {**known, **measured, **work, **of_rule}


def _finite_rows(losses: NDArray, ring: NDArray) -> int:
    """Rows before the first that holds a number that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums = ring.reshape(len(ring), -1).sum(axis=1)  # costs less than to look at every number
    finite = np.isfinite(losses) & np.isfinite(sums)
    if not finite.all():  # or large numbers overflow in a sum
        finite = np.isfinite(losses) & np.isfinite(ring).all(axis=(1, 2))
    return int(finite.size if finite.all() else np.argmin(finite))
