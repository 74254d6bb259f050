"""Find the runs in a folder, how each of them ended, and what distinguishes them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from neuralmech.record import FAILURE_FILE, FILE_NAME, Record, RecordError, open_record
from neuralmech.record.live import is_being_written

# Differences between jobs that are not hyperparameters of the run.
_BOOKKEEPING = ("device", "track.block")
PATIENCE_SECONDS = 600.0  # to import, load data and trace a model
DIVERGED = "not finite"  # how the status of a run begins that training ended for it
CUT_OFF = "cut off: the process that wrote it is gone"


@dataclass(frozen=True)
class Job:
    """A run folder: its configuration, how it ended, and, if there is nothing to analyse, the reason."""

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    status: str = "complete"
    reason: str = ""


@dataclass(frozen=True)
class Runs:
    """The jobs below a folder, and whether they are a sweep."""

    folder: Path
    jobs: tuple[Job, ...]
    is_sweep: bool

    @property
    def readable(self) -> tuple[Job, ...]:
        """Jobs with rows to analyse."""
        return tuple(job for job in self.jobs if not job.reason)

    @property
    def is_running(self) -> bool:
        """Whether a job is being written, or was made and has neither a record nor an error yet."""
        return any(job.status in ("running", "waiting") for job in self.jobs)


def find_runs(folder: Path, *, live: bool = False) -> Runs:
    """Look for ``record.h5`` in `folder` itself or, for a multirun folder, in its subfolders.

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
        return Runs(folder, (_single(folder, live),), False)
    if live and (folder / ".hydra").is_dir():
        return Runs(folder, (_without_record(folder),), False)
    jobs = sorted((p for p in folder.iterdir() if (p / ".hydra").is_dir() or (p / FILE_NAME).exists()), key=_by_number)
    found = Runs(folder, tuple(_ended_well(look(job)) for job in jobs), True)
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


def look(folder: Path) -> Job:
    """What became of a job so far."""
    if not (folder / FILE_NAME).exists():
        return _without_record(folder)
    try:
        with open_record(folder) as record:
            status = status_of(record)
            if record.rows:
                return Job(folder, record.config, status)
            begun = "no rows are committed yet" if status == "running" else status
            return Job(folder, record.config, "waiting" if status == "running" else "failed", begun)
    except RecordError as error:
        return Job(folder, _composed(folder), "failed", str(error))


def _ended_well(job: Job) -> Job:
    """A job of a sweep; one that diverged failed, and does not stand beside the others in tables and figures."""
    return replace(job, status="failed", reason=job.status) if job.status.startswith(DIVERGED) else job


def _without_record(folder: Path) -> Job:
    """A job that failed before its first step left its reason; one without has not begun, or was killed."""
    failure = folder / FAILURE_FILE
    if failure.is_file():
        return Job(folder, _composed(folder), "failed", failure.read_text(encoding="utf-8", errors="replace").strip())
    if time.time() - folder.stat().st_mtime < PATIENCE_SECONDS:
        return Job(folder, _composed(folder), "waiting", "no record yet: it is being set up")
    return Job(folder, _composed(folder), "failed", "no record: it was killed, or crashed, before the first step")


def status_of(record: Record) -> str:
    """The record's status; of one that says "running" while nobody writes it, that it was cut off."""
    if record.status == "running" and not is_being_written(record.path):
        return CUT_OFF
    return record.status


def _composed(folder: Path) -> dict[str, Any]:
    """The configuration that Hydra composed for a job."""
    try:
        loaded = yaml.safe_load((folder / ".hydra/config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}  # then the job's column of each swept key stays empty
    return loaded if isinstance(loaded, dict) else {}


def _by_number(path: Path) -> tuple[int, str]:
    return (int(path.name), "") if path.name.isdigit() else (1 << 30, path.name)


def differences(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """For each job the config keys, dotted, whose values are not the same in all of them.

    The configuration of a failed job is not completed with defaults: keys that it lacks are no difference.
    """
    jobs = list(jobs)
    flat = [_flatten(job.config) for job in jobs]
    whole = [config for config, job in zip(flat, jobs, strict=True) if not job.reason] or flat
    keys = dict.fromkeys(key for config in whole for key in config)
    swept = []
    for key in keys:
        values = {_same(config.get(key)) for config in whole}
        values |= {_same(config[key]) for config in flat if key in config}
        if len(values) > 1 and key not in _BOOKKEEPING:
            swept.append(key)
    return [{k: _scalar(config.get(k, "")) for k in swept} for config in flat]


def _same(value: Any) -> str:
    """Equal for 1 and 1.0: an override may say either."""
    return repr(float(value)) if isinstance(value, int) and not isinstance(value, bool) else repr(value)


def _scalar(value: Any) -> Any:
    """What a table can group by: lists and null as text."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat
