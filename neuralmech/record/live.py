"""Take a consistent copy of a file that another process is writing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from neuralmech.record.schema import FILE_NAME, LOCK_FILE, RecordError

T = TypeVar("T")
GLANCE_SECONDS = 0.5
QUIET_SECONDS = 0.03  # a commit is over in less
PATIENCE_SECONDS = 20.0


def is_being_written(path: Path) -> bool:
    """Whether a living process has the record open for writing: HDF5 holds a lock on it as long."""
    with path.open("rb") as file:
        return _is_locked(file)


def is_in_use(folder: Path) -> bool:
    """Whether a living process trains in a run folder, which it holds from before there is a record until the end."""
    for name in (LOCK_FILE, FILE_NAME):
        try:
            handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # it is not there, or not ours to open
            continue
        with open(handle, "rb") as file:  # noqa: PTH123  (closes it)
            if _is_locked(file):
                return True
    return False


def _is_locked(file: BinaryIO) -> bool:
    try:
        import fcntl
    except ImportError:  # no such locks on this system: then be careful
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def patiently(take: Callable[[], T]) -> T:
    """Take a lock that somebody who only looks whether it is free holds for a moment.

    Raises
    ------
    BlockingIOError
        If it is held for longer.
    """
    end = time.monotonic() + GLANCE_SECONDS
    while True:
        try:
            return take()
        except BlockingIOError:
            if time.monotonic() > end:
                raise
        time.sleep(GLANCE_SECONDS / 50)


def quiet_copy(path: Path) -> bytes:
    """Bytes of a file, read while nobody wrote to it: its time stamp stayed the same for a while before and after.

    Raises
    ------
    RecordError
        If the file is written without a pause.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    seen, since = None, 0.0
    while time.monotonic() < end:
        now = _state(path)
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since >= QUIET_SECONDS:
            data = path.read_bytes()
            if _state(path) == seen:
                return data
        time.sleep(QUIET_SECONDS / 6)
    raise RecordError(f"{path} is being written without a pause; try again later or stop the run")


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
