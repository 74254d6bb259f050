"""How the jobs of a sweep are: what its manifest says, and what the records say, which are right."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neuralmech.compare.gather.runs import DIVERGED, find_runs, status_of
from neuralmech.record import FAILURE_FILE, FILE_NAME, RecordError, open_record
from neuralmech.record.files import is_in_use
from neuralmech.sweeps.manifest import Entry, Manifest

GONE = "its process is gone"


@dataclass(frozen=True)
class JobState:
    """A job as it is now; `rows` are in its record, `steps` those that it is to take, None where that is not known."""

    entry: Entry
    rows: int | None = None
    steps: int | None = None


def states_of(folder: Path) -> list[JobState]:
    """Jobs of a sweep, in their order.

    Raises
    ------
    RecordError
        If there is no such folder, or neither a manifest nor a record in it.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder} does not exist; give the folder of a sweep, of `neuralmech train --multirun`")
    if (folder / FILE_NAME).exists():
        raise RecordError(f"{folder} is the folder of one run, no sweep's; neuralmech watch shows it")
    entries = Manifest(folder).read() or _of_records(folder)
    return [_now(folder, entries[number]) for number in sorted(entries)]


def _of_records(folder: Path) -> dict[int, Entry]:
    """Jobs of a sweep without a manifest, by what is in their folders."""
    states = {"complete": "done", "running": "running", "waiting": "running"}
    found = {}
    for number, job in enumerate(find_runs(folder, live=True).jobs):
        state = states.get(job.status, "failed" if job.reason else "stopped")
        found[number] = Entry(
            number, (), job.place, state, error=None if state in states.values() else job.reason or job.status
        )
    if not found:
        raise RecordError(f"{folder} holds no sweep; give the folder of `neuralmech train --multirun`")
    return found


def _now(sweep: Path, entry: Entry) -> JobState:
    """A job's entry, put right by its record."""
    folder = sweep / entry.folder if entry.folder else None
    if folder is None or folder.is_symlink() or not folder.resolve().is_relative_to(sweep.resolve()):
        return JobState(entry)  # it has not begun; or a folder that somebody sent shows what is elsewhere
    rows, steps, status = _record(folder)
    if is_in_use(folder):
        return JobState(replace(entry, state="running", error=None), rows, steps)
    if entry.state in ("waiting", "running"):
        entry = _settled(entry, folder, status)
    return JobState(entry, rows, steps)


def _settled(entry: Entry, folder: Path, status: str) -> Entry:
    """An entry that says that its job is yet to end, of a job that nobody trains."""
    if status == "complete":
        return replace(entry, state="done")
    if status.startswith(DIVERGED):
        return replace(entry, state="failed", error=status)
    if (folder / FAILURE_FILE).is_file():
        return replace(entry, state="failed", error=f"see {folder / FAILURE_FILE}")
    if entry.state == "running" and not is_alive(entry.process):
        return replace(entry, state="killed", error=GONE)
    return entry


def is_alive(process: str | None) -> bool:
    """Whether a process is there, as far as can be seen from this host."""
    host, _, number = (process or "").rpartition(":")
    if host != socket.gethostname() or not number.isdecimal():
        return bool(host)
    with suppress(ProcessLookupError, PermissionError):
        os.kill(int(number), 0)
        return True
    return False


def _record(folder: Path) -> tuple[int | None, int | None, str]:
    """Rows, steps to be taken, and status of a record; nothing of one that cannot be read now."""
    if not (folder / FILE_NAME).is_file():
        return None, None, ""
    try:
        with open_record(folder) as record:
            train: Any = record.config.get("train")
            steps = train.get("steps") if isinstance(train, Mapping) else None
            return record.rows, steps if isinstance(steps, int) else None, status_of(record)
    except (RecordError, OSError):  # damaged, or being written without a pause
        return None, None, ""
