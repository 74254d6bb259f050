"""Find the runs in a folder, and how each of them ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralmech.record import FAILURE_FILE, FILE_NAME, Record, RecordError, open_record
from neuralmech.record.files import is_in_use, parts_of
from neuralmech.record.safety import MAX_YAML, first_line, plain_yaml, printable

if TYPE_CHECKING:
    from neuralmech.compare.gather.kept import KeptResults

PATIENCE_SECONDS = 600.0  # to import, load data and trace a model
DIVERGED = "not finite"  # how the status of a run begins that training ended for it
NO_JOBS = (".hydra", "checkpoints", "analysis")  # parts of a run folder or a sweep
OVERRIDES = ".hydra/overrides.yaml"
DEEPEST = 8  # folders in folders that names of jobs with slashes make
CUT_OFF, GONE = "cut off: ", "the process that wrote it is gone"


@dataclass(frozen=True)
class Job:
    """A run folder: its configuration, how it ended, and, if there is nothing to analyse, the reason.

    `place` is where it is in the folder of its sweep, `overrides` are the words that it was given, `before` is the
    state of its files when somebody looked, see `KeptResults`.
    """

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    status: str = "complete"
    reason: str = ""
    place: str = ""
    overrides: tuple[str, ...] = ()
    before: Any = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the folder, for people."""
        return printable(self.place or self.path.name)


@dataclass(frozen=True)
class Runs:
    """The jobs below a folder, whether they are a sweep, and what is kept of them."""

    folder: Path
    jobs: tuple[Job, ...]
    is_sweep: bool
    kept: KeptResults | None = field(default=None, repr=False, compare=False)

    @property
    def readable(self) -> tuple[Job, ...]:
        """Jobs with rows to analyse."""
        return tuple(job for job in self.jobs if not job.reason)

    @property
    def is_running(self) -> bool:
        """Whether a job is being written, or was made and has neither a record nor an error yet."""
        return any(job.status in ("running", "waiting") for job in self.jobs)


def find_runs(folder: Path, *, live: bool = False, kept: KeptResults | None = None) -> Runs:
    """Look for ``record.h5`` in `folder` itself or, for a multirun folder, in its subfolders.

    Records that are as they were when what is `kept` of them was found are not opened.

    Raises
    ------
    RecordError
        If there is no folder, or no record in it; with `live`, only if there is no folder.
    """
    if not folder.exists():
        raise RecordError(f"{folder} does not exist; give a run folder that `neuralmech train` wrote")
    if folder.name == FILE_NAME and folder.is_file():
        folder = folder.parent
    if folder.is_file():
        raise RecordError(f"{folder} is a file; give the run folder that holds it")
    if (folder / FILE_NAME).exists():
        parts = [_of_sweep(part, folder) for part in parts_of(folder)]
        return Runs(folder, (_single(folder, live), *parts), bool(parts))
    if live and (folder / ".hydra").is_dir():
        return Runs(folder, (_without_record(folder),), False)
    jobs = sorted(_job_folders(folder), key=lambda job: [_by_number(part) for part in job.relative_to(folder).parts])
    found = Runs(folder, tuple(_of_sweep(job, folder, kept) for job in jobs), True, kept)
    if not found.readable and not live:
        reason = f" ({found.jobs[0].reason})" if found.jobs else ""
        what = "run to analyse" if found.jobs else "record"
        raise RecordError(f"{folder} holds no {what}{reason}; give a run folder or a multirun folder")
    return found


def _single(folder: Path, live: bool) -> Job:
    """The job of a run folder; its own error is raised, as there is nothing else to show."""
    if live:
        return look(folder)
    with open_record(folder) as record:
        if record.rows == 0:
            raise RecordError(f"{folder} holds no committed rows; train for at least one block")
        return Job(folder, record.config, status_of(record))


def _job_folders(folder: Path, depth: int = 0) -> Iterator[Path]:
    """The run folders below a folder, and those that cannot be looked into; their names may have slashes.

    A link is followed to a run folder and no further, so there are no loops.
    """
    for entry in folder.iterdir():
        if entry.name in NO_JOBS or (entry.name.startswith(".") and depth):
            continue
        try:
            if not entry.is_dir():
                continue
            names = {path.name for path in entry.iterdir()}
        except OSError:
            yield entry
            continue
        if FILE_NAME in names or (entry / ".hydra").is_dir():
            yield entry
        if depth < DEEPEST and not entry.is_symlink():
            yield from _job_folders(entry, depth + 1)


def _of_sweep(path: Path, sweep: Path, kept: KeptResults | None = None) -> Job:
    """A job of a sweep; one that cannot be read is named and keeps nobody from the others."""
    try:
        job = _ended_well(_looked_at(path, kept) if kept else _in_full(path))
    except OSError as error:
        job = Job(path, {}, "failed", unreadable(path, error))
    return replace(job, place=str(path.relative_to(sweep)))


def _looked_at(path: Path, kept: KeptResults) -> Job:
    """A job as it is kept, or as it is now, with the state of its files before somebody looked."""
    if (known := kept.job(path)) is not None:
        return known
    before = kept.state([path])
    return replace(_in_full(path), before=before)


def _in_full(path: Path) -> Job:
    """A job with the words that it was given."""
    return replace(look(path), overrides=_words(path / OVERRIDES))


def _words(file: Path) -> tuple[str, ...]:
    """What Hydra wrote down of a job's words, in a file that may be anybody's; nothing if it cannot be read."""
    try:
        said = None if file.is_symlink() else plain_yaml(_beginning(file).decode("utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(map(str, said)) if isinstance(said, list) else ()


def unreadable(path: Path, error: OSError) -> str:
    """Why a folder that the system does not let us read has nothing to show."""
    return f"{error.filename or path} cannot be read ({error.strerror or first_line(error)}); make it readable"


def look(folder: Path) -> Job:
    """What became of a job so far."""
    if FILE_NAME not in {path.name for path in folder.iterdir()}:  # a link to nowhere is there, and no record
        return _without_record(folder)
    try:
        with open_record(folder) as record:
            status = status_of(record)
            if record.rows:
                return Job(folder, record.config, status)
            begins = status in ("running", "complete")  # one that is complete now has rows at the next look
            begun = "no rows are committed yet" if begins else status
            return Job(folder, record.config, "waiting" if begins else "failed", begun)
    except RecordError as error:
        return _without_rows(folder, "failed", str(error))


def _ended_well(job: Job) -> Job:
    """A job of a sweep; one that diverged failed, and does not stand beside the others in tables and figures."""
    return replace(job, status="failed", reason=job.status) if job.status.startswith(DIVERGED) else job


def _without_record(folder: Path) -> Job:
    """A job that failed before its first step left its reason; one without has not begun, or was killed."""
    if (reason := _left(folder)) is not None:
        return _without_rows(folder, "failed", reason)
    if is_in_use(folder) or time.time() - folder.stat().st_mtime < PATIENCE_SECONDS:
        return _without_rows(folder, "waiting", "no record yet: it is being set up")
    return _without_rows(folder, "failed", "no record: it was killed, or crashed, before the first step")


def _without_rows(folder: Path, status: str, reason: str) -> Job:
    """A job with the configuration that Hydra composed for it, from a file that may be anybody's."""
    file, config = folder / ".hydra/config.yaml", None
    reason = printable(" ".join(reason.split())) or "it left no reason"
    try:
        if file.is_symlink():
            raise ValueError("it is a link")
        if file.is_file():
            config = plain_yaml(_beginning(file).decode("utf-8"))
        elif file.exists():
            raise ValueError("it is no file")
    except (OSError, ValueError) as error:  # then the job's column of each swept key stays empty
        reason += f"; its {file.name} cannot be read: {printable(first_line(error))}"
    return Job(folder, config if isinstance(config, dict) else {}, status, reason)


def _beginning(file: Path) -> bytes:
    """What people and Hydra put into a file is all in there, and one byte more tells that there is more."""
    with file.open("rb") as opened:
        return opened.read(MAX_YAML + 1)


def status_of(record: Record) -> str:
    """The record's status; of one that says "running" while nobody trains there, that it was cut off.

    A run says how it ended before it lets go of its folder: what is read after nobody held it is true.
    """
    if record.status != "running" or is_in_use(record.path.parent):
        return record.status
    with open_record(record.path) as again:
        ended = again.status
    return cut_off(record.path.parent) if ended == "running" and not is_in_use(record.path.parent) else ended


def cut_off(folder: Path) -> str:
    """That a run was cut off; by what, if who launched it saw that and left word."""
    return CUT_OFF + (_left(folder) or GONE)


def _left(folder: Path) -> str | None:
    """What was left of why a job was not finished, in one line; None where nothing was."""
    failure = folder / FAILURE_FILE
    if failure.is_symlink() or not failure.is_file():  # a folder that somebody sent must show nothing of ours
        return None
    return printable(" ".join(_beginning(failure).decode("utf-8", "replace").split()))


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() and len(name) < 10 else (1 << 30, name)
