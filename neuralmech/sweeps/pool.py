"""Jobs side by side in processes of their own; one that dies takes its job along, and another takes its place."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import wait
from time import monotonic

from neuralmech.errors import UserError
from neuralmech.machine import python_calling
from neuralmech.sweeps.deaths import Death, death_of, without_dump
from neuralmech.sweeps.worker import Answer, Assignment, main
from neuralmech.training.process import Interrupted, on_signals

LOOK_SECONDS = 0.2  # between two looks at processes that say nothing
LEAVE_SECONDS = 10.0  # for a process that has nothing to do to end


@dataclass(frozen=True)
class Ended:
    """What became of a job: its answer, or the death of its process; what it printed; how long it took."""

    job: Assignment
    answer: Answer | Death
    out: str
    err: str
    seconds: float


class Worker:
    """A process that does one job at a time.

    What it prints goes into files without a name: a process that dies leaves its last words there.

    Attributes
    ----------
    job
        The one that it has in hand.
    """

    def __init__(self, task: bytes, environment: Mapping[str, str]) -> None:
        self.channel, theirs = Pipe()
        held, self._lifeline = os.pipe()
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115  (closed with the worker)
        self._read, self.job, self._since = [0, 0], None, 0.0
        self._has_begun = False
        fds = (theirs.fileno(), held)
        self._process = subprocess.Popen(
            python_calling(main, *fds),
            env={**os.environ, **environment},
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=self._files[0],
            stderr=self._files[1],
            process_group=0,  # Ctrl-C reaches the one that can pass it on
        )
        theirs.close()
        os.close(held)
        self._tell(task)

    def begin(self, job: Assignment) -> None:
        """Hand a job over."""
        self.job, self._since, self._has_begun = job, monotonic(), True
        with suppress(OSError):  # it died, which shows in `ended`
            self.channel.send(job)

    def _tell(self, task: bytes) -> None:
        with suppress(OSError):
            self.channel.send_bytes(task)

    def ended(self) -> Ended | None:
        """What became of its job, if that is over."""
        assert self.job is not None
        answer = self._answer()
        if answer is None:
            return None
        out, err = (self._printed(i) for i in range(2))
        if isinstance(answer, int):
            answer, err = death_of(answer, err), without_dump(err)
        ended = Ended(self.job, answer, out, err, monotonic() - self._since)
        self.job = None
        return ended

    def _answer(self) -> Answer | int | None:
        """Its answer, or the exit code of its process, which may have answered before."""
        code = self._process.poll()
        try:
            if self.channel.poll():
                return Answer(*self.channel.recv())
        except (EOFError, OSError):
            return self._process.wait()
        return code

    def _printed(self, which: int) -> str:
        """What it printed since the last job."""
        handle, start = self._files[which].fileno(), self._read[which]
        size = os.fstat(handle).st_size
        self._read[which] = size
        return os.pread(handle, size - start, start).decode("utf-8", "replace")

    @property
    def is_alive(self) -> bool:
        """Whether its process is there."""
        return self._process.poll() is None

    def send(self, number: int) -> None:
        """Send its process a signal."""
        self._process.send_signal(number)

    def dismiss(self) -> None:
        """Tell the process that no job is to come, without waiting for its end; one that never had any is not asked."""
        self.channel.close()
        if not self._has_begun:
            self._process.kill()

    def close(self) -> None:
        """Let the process end; one that has a job in hand stops it."""
        self.dismiss()
        if self.job is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE_SECONDS)
        os.close(self._lifeline)
        try:
            self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for file in self._files:
            file.close()


class Workers:
    """Workers, each at a place among those side by side, for as many batches of jobs as come.

    Parameters
    ----------
    task
        Called with each `Assignment` in another process.
    count
        Workers at most.
    environment
        Variables for the worker at a place.
    """

    def __init__(self, task: bytes, count: int, environment: Callable[[int], Mapping[str, str]]) -> None:
        if os.name != "posix":
            raise UserError("hydra/launcher=pool needs Linux or macOS; take hydra/launcher=joblib")
        self._task, self._count, self._environment = task, count, environment
        self._workers: dict[int, Worker] = {}

    @property
    def running(self) -> list[Assignment]:
        """Jobs in hand."""
        return [worker.job for worker in self._workers.values() if worker.job is not None]

    def carry_out(self, jobs: Sequence[Assignment]) -> Iterator[Ended | None]:
        """Do jobs; each when it is over, and None now and then meanwhile.

        A signal is passed on to those in hand; once they are over, which they say too, none begins.

        Raises
        ------
        Interrupted
            Then.
        """
        waiting = deque(jobs)
        with on_signals() as stop:
            while stop.signal is None and (waiting or self.running):
                self._hand_out(waiting)
                yield from self._over()
                yield None
            if stop.signal is not None:
                yield from self._stopped(stop.signal)
                raise Interrupted(None, stop.signal)

    def begin(self) -> None:
        """Begin all processes, which get ready before there is a job."""
        for place in range(self._count):
            self._workers[place] = Worker(self._task, self._environment(place))

    def _hand_out(self, waiting: deque[Assignment]) -> None:
        for place in range(self._count):
            worker = self._workers.get(place)
            if not waiting or (worker and worker.job):
                continue
            if worker is None or not worker.is_alive:
                if worker:
                    worker.close()
                worker = self._workers[place] = Worker(self._task, self._environment(place))
            worker.begin(waiting.popleft())

    def _over(self) -> Iterator[Ended]:
        """Jobs that are over, after a while of waiting for one."""
        busy = {worker.channel: worker for worker in self._workers.values() if worker.job}
        wait(list(busy), LOOK_SECONDS)
        for worker in busy.values():
            if ended := worker.ended():
                yield ended

    def _stopped(self, number: int) -> Iterator[Ended]:
        """Jobs in hand, which are asked to stop; who insists does not wait for their checkpoints, then for nothing."""
        asked = 0
        again = True
        while self.running:
            if again:
                for worker in self._workers.values():
                    if worker.job:
                        worker.send(number if asked < 2 else signal.SIGKILL)
                asked, again = asked + 1, False
            try:
                yield from self._over()
            except KeyboardInterrupt:
                again = True

    def close(self) -> None:
        """End all processes, which takes each a moment: side by side."""
        for worker in self._workers.values():
            if worker.job is None:
                worker.dismiss()
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()


_open: list[Workers] = []


def kept_open(pool: Workers) -> Workers:
    """The same pool, which ends with `none_left_open`."""
    _open.append(pool)
    return pool


@contextmanager
def none_left_open() -> Iterator[None]:
    """At the end no pool is there any more: who launches jobs is not told when the last was."""
    try:
        yield
    finally:
        while _open:
            _open.pop().close()
