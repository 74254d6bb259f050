"""``sweep.json``: what jobs a sweep has and what became of each, whoever carries them out."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from neuralmech.record import RecordError
from neuralmech.record.files import try_lock, write_whole

MANIFEST = "sweep.json"
STATES = ("waiting", "running", "done", "stopped", "killed", "failed", "refused")
MAX_BYTES = 1 << 26  # of a file that may be anybody's
PATIENCE_SECONDS = 30.0  # for others who write; each takes milliseconds
OF_THE_REPEAT = "sweep."  # options that say how a sweep is taken up again, and are none of its jobs'


@dataclass(frozen=True)
class Entry:
    """A job of a sweep.

    Attributes
    ----------
    number, overrides, folder
        As Hydra counts it, its words, and its folder in that of the sweep; None before it begins.
    state
        waiting; running; done; stopped (asked to, with a checkpoint); killed (from outside); failed; refused.
    seconds
        That its processes took for it, all of them together, those before it was stopped too.
    error
        Why it is not done, in one line.
    process
        Host and number of the process that has it in hand or, before that, of the one that is going to hand it out.
    """

    number: int
    overrides: tuple[str, ...] = ()
    folder: str | None = None
    state: str = "waiting"
    seconds: float | None = None
    error: str | None = None
    process: str | None = None

    def is_of(self, overrides: Sequence[str]) -> bool:
        """Whether these words are this job's."""
        return self.overrides == own_words(overrides)


def own_words(overrides: Sequence[str]) -> tuple[str, ...]:
    """A job's words less those that say how its sweep is taken up again.

    Examples
    --------
    >>> own_words(["seed=1", "sweep.retry=true"])
    ('seed=1',)
    """
    return tuple(word for word in overrides if not word.lstrip("+").startswith(OF_THE_REPEAT))


def this_process() -> str:
    """Host and number of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Manifest:
    """The manifest in a sweep's folder. Several processes may write it; a look at it sees it whole."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / MANIFEST

    def read(self) -> dict[int, Entry]:
        """Jobs by number; none if there is no manifest.

        Raises
        ------
        RecordError
            If it cannot be read.
        """
        if self.path.is_symlink() or not self.path.is_file():  # where links lead is nobody's business
            return {}
        try:
            with self.path.open("rb") as file:
                listed = json.loads(file.read(MAX_BYTES))["jobs"]
            return {entry.number: entry for entry in map(_entry, listed)}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RecordError(
                f"{self.path} cannot be read ({type(error).__name__}: {error}); remove it: records say what is done"
            ) from None

    def change(self, by: Callable[[dict[int, Entry]], Mapping[int, Entry]]) -> None:
        """Replace the jobs by what a function makes of them; others who want to wait meanwhile."""
        with _held(self.folder):
            before = self.read()
            after = by(dict(before))
            if after != before:
                write_whole(self.path, _text(after))

    def update(self, number: int, **changes: Any) -> None:
        """Change one job's entry."""
        self.change(lambda jobs: {**jobs, number: replace(jobs.get(number, Entry(number)), **changes)})

    def plan(self, jobs: Mapping[int, Sequence[str]], process: str | None = None) -> None:
        """Enter jobs that are to be and the process that will hand them out; what is known of the same ones stays."""

        def entered(known: dict[int, Entry]) -> dict[int, Entry]:
            new = {n: Entry(n, own_words(words)) for n, words in jobs.items()}
            kept = {n: known[n] if n in known and known[n].is_of(e.overrides) else e for n, e in new.items()}
            if process:
                kept = {n: replace(e, process=process) if e.state == "waiting" else e for n, e in kept.items()}
            return known | kept

        self.change(entered)

    def take_back(self, before: Mapping[int, Entry]) -> None:
        """Leave out what was entered and did not begin; it is again as it was before."""

        def left(jobs: dict[int, Entry]) -> dict[int, Entry]:
            idle = {n for n, entry in jobs.items() if entry.state in ("waiting", "refused")}
            return {n: before[n] if n in idle else jobs[n] for n in jobs if n not in idle or n in before}

        self.change(left)
        if not self.read():
            self.path.unlink(missing_ok=True)


def _entry(values: Mapping[str, Any]) -> Entry:
    """An entry from a file that may be anybody's."""
    entry = Entry(**{f.name: values[f.name] for f in fields(Entry) if f.name in values})
    words = tuple(str(word) for word in entry.overrides)
    texts = (entry.folder, entry.error, entry.process)
    if (
        not isinstance(entry.number, int)
        or entry.state not in STATES
        or any(not isinstance(t, str | None) for t in texts)
    ):
        raise ValueError(f"job {entry.number!r} is none")
    if not isinstance(entry.seconds, int | float | None):
        raise ValueError(f"seconds of job {entry.number} are none")
    return replace(entry, overrides=words)


def _text(jobs: Mapping[int, Entry]) -> bytes:
    """A line for each job, for people too."""
    lines = ",\n".join(f"  {json.dumps(asdict(jobs[number]))}" for number in sorted(jobs))
    return f'{{"version": 1, "jobs": [\n{lines}\n]}}\n'.encode()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder itself, so that no lock lies about; without locks the last who writes is right."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    end = monotonic() + PATIENCE_SECONDS
    try:
        with suppress(OSError):  # a file system that locks no folders
            while monotonic() < end:
                try:
                    try_lock(handle)
                    break
                except BlockingIOError:
                    sleep(0.005)
        yield
    finally:
        os.close(handle)
