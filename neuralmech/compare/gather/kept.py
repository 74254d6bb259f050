"""What analyses before found in records that are still as they were; see `KeptResults`."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy

from neuralmech import __version__
from neuralmech.compare.gather.job import Compared
from neuralmech.compare.gather.options import Options
from neuralmech.compare.gather.plain import packed, unpacked
from neuralmech.compare.gather.runs import DIVERGED, OVERRIDES, Job
from neuralmech.record import FAILURE_FILE, FILE_NAME
from neuralmech.record.files import is_in_use
from neuralmech.record.schema import LOG_FILE

FOLDER = "analysis/.kept"
ENDING = ".npz"
MAX_BYTES = 1 << 28  # of a file that may be anybody's
READ = (FILE_NAME, LOG_FILE, FAILURE_FILE, OVERRIDES)  # what an analysis reads of a run with rows
CODE = ("compare/measure", "compare/gather", "laws", "record")  # what tables are made by


@dataclass(frozen=True)
class KeptResults:
    """Files in a sweep's ``analysis/.kept``, one for each job and one for each that predicts another batch size.

    An entry is taken for what is in the record only if it was made by the same code under the same options, of the
    same file: by place on the disk, size, time of the last write and of the last change of any kind. A copy of the
    folder, a record that was replaced, an entry that is damaged or that somebody else made: then the record is read.

    Parameters
    ----------
    folder
        The sweep.
    options
        Those that what is kept depends on, and the code.
    writes
        Whether entries are made; Python's `neuralmech.analyze` writes nothing.
    """

    folder: Path
    options: str
    writes: bool = True

    @classmethod
    def of(cls, folder: Path, chosen: Options, *, writes: bool = True) -> KeptResults:
        """What is kept of a sweep under some options."""
        laws = None if chosen.laws is None else sorted(chosen.laws)
        return cls(folder, f"{_code()} laws={laws} lines={chosen.lines} block={chosen.block}", writes)

    def job(self, path: Path) -> Job | None:
        """A job as it was when somebody looked, if it had ended; None if it has to be looked at."""
        found = None if is_in_use(path) else self.get("job", [path])
        return replace(found, path=path) if isinstance(found, Job) else None

    def keep_job(self, job: Job) -> None:
        """Keep what a job is that was looked at and has ended."""
        was = replace(job, status=job.reason, reason="") if job.reason.startswith(DIVERGED) else job
        if job.before is not None and _has_ended(was):
            self.put("job", [job.path], replace(was, path=Path(), before=None), job.before)

    def compared(self, job: Job, *, drawn: bool) -> Compared | None:
        """What was found in a job, with curves if it is to be drawn; None if it has to be found."""
        found = self.get("compared", [job.path]) if _has_ended(job) else None
        if not isinstance(found, Compared) or found.row["status"] != job.status or (drawn and found.panel is None):
            return None
        return found if drawn else replace(found, panel=None)

    def keep_compared(self, job: Job, found: Compared, before: object) -> None:
        """Keep what was found in a job that has ended, and still is as it was."""
        if _has_ended(job) and found.row["status"] == job.status:
            self.put("compared", [job.path], found, before)

    def state(self, paths: Iterable[Path]) -> list[tuple[int, ...] | None]:
        """What changes with the files of some runs."""
        return [_state(path / name) for path in paths for name in READ]

    def get(self, what: str, paths: Sequence[Path]) -> Any:
        """An entry made of some runs, or None."""
        path = self._path(what, paths)
        try:
            if path.is_symlink() or path.stat().st_size > MAX_BYTES or self._is_elsewhere():
                return None
            return unpacked(path.read_bytes(), self._made_of(self.state(paths)))
        except Exception:  # noqa: BLE001  (it is not there, or damaged, or somebody's: what is kept is no record)
            return None

    def put(self, what: str, paths: Sequence[Path], found: Any, before: object) -> None:
        """Make an entry of what was found in some runs, unless they changed meanwhile."""
        if not self.writes or before != self.state(paths) or self._is_elsewhere():
            return
        path = self._path(what, paths)
        temporary = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError, TypeError):  # no room, not ours to write, or a config with odd values: nothing is kept
            content = packed(found, self._made_of(before))
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    file.write(content)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def tidy(self, jobs: Iterable[Job]) -> None:
        """Keep what jobs are, of those that were looked at, and remove entries of jobs that are no more."""
        if not self.writes or self._is_elsewhere():
            return
        there: set[str] = set()
        for job in jobs:
            self.keep_job(job)
            there |= {self._path(what, [job.path]).name for what in ("job", "compared", "batches")}
        with suppress(OSError):
            for path in (self.folder / FOLDER).glob(f"*{ENDING}"):
                if path.name not in there:
                    path.unlink()

    def _made_of(self, state: Any) -> str:
        return f"{self.options} {state}"

    def _path(self, what: str, paths: Sequence[Path]) -> Path:
        name = hashlib.sha256(os.path.relpath(paths[0], self.folder).encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / FOLDER / f"{what}-{name[:24]}{ENDING}"

    def _is_elsewhere(self) -> bool:
        """Whether a link leads out of the sweep's folder: what is there is nobody's business."""
        return any(p.is_symlink() for p in (self.folder / "analysis", self.folder / FOLDER))


def _has_ended(job: Job) -> bool:
    """Whether a job has rows, and nobody who writes more."""
    return not job.reason and job.status not in ("running", "waiting")


def _state(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@cache
def _code() -> str:
    """What changes with the code that finds what is kept, and with the libraries below it."""
    root, sources = Path(__file__).parents[2], hashlib.sha256()
    for part in CODE:
        for path in sorted((root / part).rglob("*.py")):
            sources.update(path.read_bytes())
    versions: Mapping[str, str] = {
        "neuralmech": __version__, "python": platform.python_version(), "numpy": np.__version__,
        "pandas": pd.__version__, "h5py": h5py.__version__, "scipy": scipy.__version__,
    }  # fmt: skip
    return f"{dict(versions)} {sources.hexdigest()[:24]}"
