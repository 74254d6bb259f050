"""Write a record from a thread of its own, so that training does not wait for compression and the disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from time import monotonic
from types import TracebackType
from typing import Any

from jaxtyping import Float64, Shaped
from numpy.typing import NDArray

from neuralmech.record.writer import Later, RecordWriter

AHEAD = 2  # blocks that may wait; then the loop waits: nothing is dropped


class BackgroundWriter:
    """A `RecordWriter` whose `append` returns at once; everything else waits until all rows are written.

    The arrays passed to `append` must not change afterwards. An error of the thread is raised by the next call;
    nothing is written after it.

    Parameters
    ----------
    record
        What writes.
    hear
        Is called in the thread with the steps and charges of each block; it must not keep the arrays.

    Attributes
    ----------
    waited
        Seconds that `append` waited for the disk.
    error
        What the thread died of, or None.
    committing
        Seconds that the last `commit_later` took; infinite while it is on its way.
    """

    def __init__(self, record: RecordWriter, hear: Callable[[Mapping, Mapping], object] | None = None) -> None:
        self._record, self._hear = record, hear
        self._queue: Queue[tuple[Later, Callable[[], object] | None] | None] = Queue(AHEAD)
        self.error: BaseException | None = None
        self.waited, self.committing = 0.0, 0.0
        self._thread = Thread(target=self._work, name="record", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self._record.path

    def append(
        self,
        steps: Mapping[str, Shaped[NDArray, " rows"]],
        charges: Mapping[str, Mapping[str, Float64[NDArray, "rows charges"]]],
    ) -> None:
        """Hand a block of rows over; waits only if the disk is slower than the training."""
        self.append_later(lambda: (steps, charges))

    def append_later(self, rows: Later, done: Callable[[], object] | None = None) -> None:
        """Hand over rows that the thread asks for when it writes: they may have to come from a GPU, or be none (None).

        It calls `done` when it needs the arrays no more.
        """
        self.check()
        try:
            self._queue.put_nowait((rows, done))
        except Full:
            start = monotonic()
            self._queue.put((rows, done))
            self.waited += monotonic() - start

    def commit_later(self) -> None:
        """Let the thread write the rows that wait for their chunk to fill, behind all that it was given."""
        self.committing = inf

        def commit() -> None:
            start = monotonic()
            self._record.commit()
            self.committing = monotonic() - start

        self.append_later(lambda: None, commit)

    def drain(self) -> None:
        """Wait until every row is written."""
        self._queue.join()
        self.check()

    def check(self) -> None:
        """Raise the thread's error, if it had one; waits for nothing."""
        if self.error is not None:
            raise self.error

    def close(self, status: str = "complete") -> None:
        """Close the file once every row is written, or let go of it as it is on the disk."""
        self._queue.join()
        try:
            self._record.close(status)
        except BaseException:
            self._record.abandon()
            raise
        self.check()

    def __getattr__(self, name: str) -> Any:
        self.drain()
        return getattr(self._record, name)

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self.check()

    def _heard(self, rows: Later) -> Later:
        def read() -> tuple[Mapping, Mapping] | None:
            block = rows()
            if block and self._hear is not None:
                self._hear(*block)
            return block

        return read

    def _work(self) -> None:
        while (waiting := self._queue.get()) is not None:
            rows, done = waiting
            try:
                if self.error is None:
                    self._record.append_later(rows if self._hear is None else self._heard(rows), done)
            except BaseException as error:  # noqa: BLE001  (raised where the loop can see it)
                self.error = error
            finally:
                self._queue.task_done()
        self._queue.task_done()
