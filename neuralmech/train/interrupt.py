"""Stop between two steps when asked to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, after everything measured was written.

    `rows` says how many the record holds, None if there is none yet, `signal` who asked; `resumable` is set if there
    is a checkpoint. `remedy` is for who knows how to go on.
    """

    def __init__(self, rows: int | None, number: int = signal.SIGINT, *, resumable: bool = False) -> None:
        super().__init__()
        self.rows, self.signal, self.resumable, self.remedy = rows, number, resumable, ""


class Stop:
    """Whether a signal has asked to stop: its number, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; a second one does not wait for the step."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def on_signals() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a wish to stop, in the main thread; elsewhere nothing changes."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    if hasattr(signal, "pthread_sigmask"):  # processes forked by the server that serves the data's workers are deaf
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def until_terminated() -> Iterator[None]:
    """Let SIGTERM raise, as Ctrl-C does, so that what was begun is cleared away; in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(None, number)
