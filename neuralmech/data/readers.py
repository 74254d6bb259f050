"""Processes that read data: started clean, deaf to what asks a run to stop, and gone when the run is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_sharer, resource_tracker
from time import monotonic
from types import TracebackType
from typing import Any

from neuralmech.signals import SIGNALS

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
GRACE_SECONDS = 1.0  # that a reader has to end by itself; one in the middle of an item that takes longer is killed
_CONTEXT = multiprocessing.get_context(METHOD)


class Reader(_CONTEXT.Process):  # type: ignore[name-defined, misc]
    """A process that does not hear SIGTERM: what would end others with it, Python at its exit above all, kills it."""

    deadline: float | None = None

    def start(self) -> None:
        """Start it, also from a process that was itself started in a way that a clean one does not know (joblib's)."""
        before = multiprocessing.get_start_method(allow_none=True)
        multiprocessing.set_start_method(METHOD, force=True)  # it is told what is set here
        try:
            super().start()
        finally:
            multiprocessing.set_start_method(before, force=True)

    def join(self, timeout: float | None = None) -> None:
        """Wait for it to end, but not for ever."""
        left = GRACE_SECONDS if self.deadline is None else max(self.deadline - monotonic(), 0.0)
        super().join(left if timeout is None else min(left, timeout))
        if self.is_alive():
            self.kill()
            super().join(timeout)

    def terminate(self) -> None:
        """Kill it."""
        self.kill()


class Readers(type(_CONTEXT)):  # type: ignore[misc]
    """A context for the readers of one loader: processes forked by a clean one, which has torch in memory.

    A fork of this process itself may inherit a lock that the record's writer holds.
    """

    _server_is_ready = False

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Reader] = []
        if METHOD == "forkserver":
            self.set_forkserver_preload(["torch"])
            _start_server()
            if not Readers._server_is_ready:  # which takes it seconds: whoever interrupts need not wait for that
                first = Reader(target=int, daemon=True)
                first.start()
                first.join()
                Readers._server_is_ready = True

    def Process(self, *arguments: Any, **options: Any) -> Reader:  # type: ignore[override]
        """Make a reader, as a loader asks for one."""
        self.started.append(Reader(*arguments, **options))
        return self.started[-1]

    def give_notice(self) -> None:
        """From now on all of them have the same time to end."""
        for reader in self.started:
            reader.deadline = monotonic() + GRACE_SECONDS


def _expect_broken_handovers() -> None:
    """Say nothing of a run that went while a thread of Python's handed it a file; say other errors as before."""
    say = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        of_thread = trace is not None and trace.tb_frame.f_code.co_filename == resource_sharer.__file__
        if not (of_thread and isinstance(error, (OSError, EOFError))):
            say(kind, error, trace)

    sys.excepthook = report


def _start_server() -> None:
    """Start the clean process deaf to what asks a run to stop, as all that it forks: both need seconds to say so.

    A mask is inherited; `attend` is for where readers are spawned. Python has one such server to a process, so what
    others start from it later is deaf, too, and `Process.terminate` does nothing to it (`kill` does). A server that
    runs already is left as it is: who needs both calls `multiprocessing.forkserver.ensure_running()` first.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        resource_tracker.ensure_running()  # it takes signals off the mask when it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def attend(_: int) -> None:
    """Leave signals to the run, which finishes its step and then ends its readers; end with it if it is killed."""
    _expect_broken_handovers()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_run, name="run", daemon=True).start()


def _end_with_the_run() -> None:
    """PyTorch's readers watch who forked them, which here is the server, and that one waits for them."""
    run = multiprocessing.parent_process()
    assert run is not None
    run.join()
    os._exit(1)


@contextmanager
def later() -> Iterator[None]:
    """Let signals that come meanwhile do what they do only at the end, in the main thread; elsewhere they do nothing.

    Handlers, not the mask: a signal may reach any thread, and Python calls its handler in this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, lambda n, _: came.append(n))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
        for number in dict.fromkeys(came):
            signal.raise_signal(number)
