"""A run as a process among others: it stops when asked to, alone holds its folder, and says what it waits for."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

from neuralmech.errors import UserError
from neuralmech.record import FILE_NAME
from neuralmech.record.files import patiently, try_lock
from neuralmech.record.schema import LOCK_FILE
from neuralmech.signals import SIGNALS
from neuralmech.words import printable

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
    alone
        Whether this process may leave without others that wait for it; otherwise no signal ends anything by itself.
    """

    def __init__(self, *, alone: bool = True) -> None:
        self.signal: int | None = None
        self.waits, self._alone = False, alone
        self._since = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; a second one does not wait for the step."""
        if self.signal is not None:
            if number in IMPATIENT and monotonic() - self._since > SAME_SECONDS:
                raise KeyboardInterrupt
            return
        self.signal, self._since = number, monotonic()
        if self.waits and self._alone:
            raise Interrupted(None, number)


@contextmanager
def on_signals(*, alone: bool = True) -> Iterator[Stop]:
    """Turn signals into a wish to stop, in the main thread; elsewhere nothing changes.

    A batch system's library that waits for one of them gets it at the end, when what was measured is saved: it ends
    this process then, and hands the job in once more.
    """
    stop = Stop(alone=alone)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = _handled_by(stop, also=_hands_in_again)
    if hasattr(signal, "pthread_sigmask"):  # processes forked by the server that serves the data's workers are deaf
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        waiting = before.get(stop.signal or 0)
        if waiting is not None and _hands_in_again(waiting):
            waiting(stop.signal, None)


@contextmanager
def until_terminated() -> Iterator[None]:
    """Let other signals raise, as Ctrl-C does, so that what was begun is cleared away; in the main thread.

    Who has them otherwise meanwhile keeps them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raising = _Raising()
    before = _handled_by(raising, but=(signal.SIGINT,))
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is raising:
                signal.signal(number, handler)


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Let signals end this process as the system does: nothing is begun, and what waits for others is no Python.

    A handler would have its turn only when that comes back, which it may never do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: found for number in SIGNALS if (found := signal.getsignal(number)) not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
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


def _handled_by(
    handler: Handler, but: tuple[int, ...] = (), also: Callable[[Any], bool] = lambda _: False
) -> dict[int, Any]:
    """Let a handler have the signals; returns who had them.

    One that is ignored stays so: `nohup` and a shell that puts us in the background ask for that. Where somebody else,
    waits for a signal that only a scheduler sends, it goes on waiting.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS if number not in but}
    taken: dict[int, Any] = {
        number: found
        for number, found in before.items()
        if found not in (None, signal.SIG_IGN)
        and (number in IMPATIENT or found == signal.SIG_DFL or isinstance(found, _Raising) or also(found))
    }
    for number in taken:
        signal.signal(number, handler)
    return taken


def _hands_in_again(handler: Any) -> bool:
    """Whether a handler is that of submitit, which hands a job in once more before its time is up."""
    found = getattr(handler, "__func__", None)
    return getattr(found, "__name__", "") == "checkpoint_and_try_requeue"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the kernel lets go of it when the process ends, however it ends.

    Nothing there may be a link: the folder may come from somewhere else, and what is written goes where links point.

    Raises
    ------
    UserError
        If another process trains there, or its checkpoints or the lock are links to another place.
    """
    for path in (folder / FILE_NAME, folder / "checkpoints"):
        if path.is_symlink():
            raise UserError(f"{path} is a link to another place; put what it points to there instead")
    (folder / "checkpoints").mkdir(exist_ok=True)
    handle = _open(folder / LOCK_FILE)
    with open(handle, "rb"):  # noqa: PTH123  (closes it)
        try:
            has_locks = patiently(lambda: try_lock(handle))
        except BlockingIOError:
            raise UserError(f"{folder} is in use by another process that trains there; wait for it to end") from None
        if not has_locks:
            say(f"{folder} is on a file system without locks: see to it that no second process trains there")
        yield


def _open(path: Path) -> int:
    """Open the lock, which stays empty, or make it; what is there is not written to."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path} is a link to another place; remove it") from None


AFTER, AGAIN = 5.0, 30.0  # seconds until the first line, and until a step that goes on is named once more


@contextmanager
def patience(task: str, after: float = AFTER, again: float = AGAIN) -> Iterator[Callable[[str], None]]:
    """Give a function that takes the name of each step of a task; after a while, lines on stderr name the step.

    A thread prints, because a step may be one long call. A task that ends before prints nothing.
    """
    stream, start = sys.stderr, monotonic()  # torch.export's own words are kept from stderr, ours are not
    changed, ended, step = threading.Condition(), False, "starting"

    def enter(name: str) -> None:
        nonlocal step
        with changed:
            step = name
            changed.notify()

    def tell() -> None:
        with changed:
            changed.wait_for(lambda: ended, after)
            while not ended:
                said = step
                print(f"neuralmech: {task}: {said} ({monotonic() - start:.0f} s so far)", file=stream, flush=True)
                changed.wait_for(lambda: ended or step != said, again)  # noqa: B023  (called here alone)

    teller = threading.Thread(target=tell, daemon=True, name="patience")
    teller.start()
    try:
        yield enter
    finally:
        with changed:
            ended = True
            changed.notify()
        teller.join()


def say(text: str) -> None:
    """Tell the user something on stderr, in one line."""
    print(f"neuralmech: {printable(' '.join(text.split()))}", file=sys.stderr)
