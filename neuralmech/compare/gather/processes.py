"""Work of an analysis in processes side by side; one that dies takes what it has in hand along, and nothing else."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from neuralmech.machine import THREADS, cores, python_calling
from neuralmech.record import FILE_NAME
from neuralmech.words import signal_name

Item = TypeVar("Item")
Result = TypeVar("Result")

WORTH_BYTES = 16 << 20  # of records: a process takes as long to begin as to read them
LIBRARIES = (THREADS, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Gone(NamedTuple):
    """In place of a result: how the process ended that was to find it."""

    cause: str


class _Answer(NamedTuple):
    value: Any = None
    error: BaseException | None = None
    trace: str = ""


def count(chosen: int | None, folders: Sequence[Path]) -> int:
    """How many processes are to read some run folders: as many as chosen, or cores, but none with little to do."""
    most = min(chosen or cores(), len(folders))
    if chosen is not None or most < 2:
        return most
    size = sum((folder / FILE_NAME).stat().st_size for folder in folders)
    return max(1, min(most, size // WORTH_BYTES))


def carry_out(task: Callable[[Item], Result], items: Sequence[Item], processes: int) -> Generator[Result | Gone]:
    """Results of a function of a module for some items, in their order.

    With one process it is this one. An error that the function raises is raised here, with its traceback as a note.
    Whoever stops this, by an error, a signal or by asking for no more, ends the processes.
    """
    if processes < 2:
        yield from map(task, items)
        return
    side_by_side = _SideBySide(task)
    callers = ThreadPoolExecutor(processes, "analysis")
    try:
        for future in [callers.submit(side_by_side.do, item) for item in items]:
            answer = future.result()
            if isinstance(answer, Gone):
                yield answer
                continue
            if answer.error is not None:
                answer.error.add_note(answer.trace)
                raise answer.error
            yield answer.value
    finally:
        side_by_side.end()
        callers.shutdown(cancel_futures=True)


class _SideBySide:
    """Processes, each in the hands of a thread that waits for its answers."""

    def __init__(self, task: Callable[[Any], Any]) -> None:
        self._task, self._mine = task, threading.local()
        self._all: list[subprocess.Popen[bytes]] = []
        self._lock, self._is_over = threading.Lock(), False

    def do(self, item: Any) -> _Answer | Gone:
        """Let this thread's process do it; one that died has a successor."""
        process = self._process()
        if process is None:
            return Gone("the analysis was stopped")
        calls, answers = _pipes(process)
        try:
            pickle.dump((self._task, item), calls)
            calls.flush()
            return pickle.load(answers)
        except (OSError, EOFError, pickle.UnpicklingError):
            self._mine.process = None
            process.kill()
            return Gone(_ended(process.wait()))

    def _process(self) -> subprocess.Popen[bytes] | None:
        if getattr(self._mine, "process", None) is None:
            with self._lock:
                if self._is_over:
                    return None
                self._mine.process = _begun()
                self._all.append(self._mine.process)
        return self._mine.process

    def end(self) -> None:
        """End all processes, whatever they do."""
        with self._lock:
            self._is_over = True
        for process in self._all:
            process.kill()
            process.wait()
            for pipe in _pipes(process):
                with suppress(OSError):  # what was not sent any more
                    pipe.close()


def _begun() -> subprocess.Popen[bytes]:
    """A process that needs no look at the program that it is begun by, and that Ctrl-C does not reach."""
    return subprocess.Popen(
        python_calling(serve),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **dict.fromkeys(LIBRARIES, "1")},
        process_group=0 if os.name == "posix" else None,
    )


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _ended(code: int) -> str:
    how = f"was ended by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    return f"the process that analysed it {how}; the same command analyses it again"


def serve() -> None:
    """Do what comes on the standard input, until nobody sends any more; answers go to the standard output."""
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    with suppress(EOFError, BrokenPipeError):  # nobody is there any more
        while True:
            task, item = pickle.load(calls)
            pickle.dump(_done(task, item), answers)
            answers.flush()


def _done(task: Callable[[Any], Any], item: Any) -> _Answer:
    try:
        return _Answer(task(item))
    except Exception as error:  # noqa: BLE001  (whoever waits for it raises it)
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001  (whatever a class of errors does when it is copied)
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return _Answer(error=error, trace=trace)
