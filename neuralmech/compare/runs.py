"""Find the runs in a folder and what distinguishes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuralmech.record import FILE_NAME, Record, RecordError, open_record

# Differences between jobs that are not hyperparameters of the run.
_BOOKKEEPING = ("device", "track.block")


@dataclass(frozen=True)
class Runs:
    """The run folders below a folder, whether they are a sweep, and jobs that left no readable record."""

    folder: Path
    runs: tuple[Path, ...]
    is_sweep: bool
    failed: Mapping[str, str]


def find_runs(folder: Path) -> Runs:
    """Look for ``record.h5`` in `folder` itself or, for a multirun folder, in its subfolders.

    Raises
    ------
    RecordError
        If there is no folder, or no record in it.
    """
    if not folder.exists():
        raise RecordError(f"{folder} does not exist; give a run folder that `neuralmech train` wrote")
    if folder.name == FILE_NAME and folder.is_file():
        folder = folder.parent
    if folder.is_file():
        raise RecordError(f"{folder} is a file; give the run folder that holds it")
    if (folder / FILE_NAME).exists():
        return Runs(folder, (folder,), False, {})
    jobs = sorted((p for p in folder.iterdir() if (p / ".hydra").is_dir() or (p / FILE_NAME).exists()), key=_by_number)
    runs, failed = [], {}
    for job in jobs:
        try:
            with open_record(job) as record:
                if record.rows == 0:
                    raise RecordError(f"{job} holds no committed rows")
            runs.append(job)
        except RecordError as error:
            failed[job.name] = str(error)
    if not runs:
        reason = f" ({next(iter(failed.values()))})" if failed else ""
        raise RecordError(f"{folder} holds no record{reason}; give a run folder or a multirun folder")
    return Runs(folder, tuple(runs), True, failed)


def _by_number(path: Path) -> tuple[int, str]:
    return (int(path.name), "") if path.name.isdigit() else (1 << 30, path.name)


def differences(records: Iterable[Record]) -> list[dict[str, Any]]:
    """For each record the config keys, dotted, whose values are not the same in all of them."""
    flat = [_flatten(record.config) for record in records]
    keys = list(dict.fromkeys(key for config in flat for key in config))
    swept = [k for k in keys if len({repr(c.get(k)) for c in flat}) > 1 and k not in _BOOKKEEPING]
    return [{k: _scalar(config.get(k)) for k in swept} for config in flat]


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
