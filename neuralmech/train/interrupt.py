"""Stop between two steps when asked to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

from neuralmech.signals import SIGNALS

Handler = Callable[[int, FrameType | None], None]
IMPATIENT = (signal.SIGINT, signal.SIGTERM)  # the terminal's end comes twice, from the kernel and from the shell
SAME_SECONDS = 0.5  # `timeout` sends SIGTERM to its child and to the child's group: that is one wish


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, after everything measured was written.

    `rows` says how many the record holds, None if there is none yet, `signal` who asked; `resumable` is set if there
    is a checkpoint. `remedy` is for who knows how to go on.
    """

    def __init__(self, rows: int | None = None, number: int = signal.SIGINT, *, resumable: bool = False) -> None:
        super().__init__()
        self.rows, self.signal, self.resumable, self.remedy = rows, number, resumable, ""


class Stop:
    """Whether a signal has asked to stop: its number, or None.

    Attributes
    ----------
    waits
        Set where nothing is lost if a signal ends what is going on: it raises `Interrupted` there.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.waits = False
        self._since = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; a second one does not wait for the step."""
        if self.signal is not None:
            if number in IMPATIENT and monotonic() - self._since > SAME_SECONDS:
                raise KeyboardInterrupt
            return
        self.signal, self._since = number, monotonic()
        if self.waits:
            raise Interrupted(None, number)


@contextmanager
def on_signals() -> Iterator[Stop]:
    """Turn signals into a wish to stop, in the main thread; elsewhere nothing changes."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = _handled_by(stop)
    if hasattr(signal, "pthread_sigmask"):  # processes forked by the server that serves the data's workers are deaf
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def until_terminated() -> Iterator[None]:
    """Let other signals raise, as Ctrl-C does, so that what was begun is cleared away; in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _handled_by(_Raising(), but=(signal.SIGINT,))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Raising:
    """Raises `Interrupted`, but once only for what is sent twice."""

    def __init__(self) -> None:
        self._since = -SAME_SECONDS

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if monotonic() - self._since > SAME_SECONDS:
            self._since = monotonic()
            raise Interrupted(None, number)


def _handled_by(handler: Handler, but: tuple[int, ...] = ()) -> dict[int, Any]:
    """Let a handler have the signals; returns who had them.

    One that is ignored stays so: `nohup` and a shell that puts us in the background ask for that. Where somebody else,
    such as a scheduler's library, waits for a signal that only a scheduler sends, it goes on waiting.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS if number not in but}
    taken: dict[int, Any] = {
        number: found
        for number, found in before.items()
        if found not in (None, signal.SIG_IGN)
        and (number in IMPATIENT or found == signal.SIG_DFL or isinstance(found, _Raising))
    }
    for number in taken:
        signal.signal(number, handler)
    return taken
