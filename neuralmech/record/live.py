"""Take a consistent copy of a file that another process is writing."""

from __future__ import annotations

import time
from pathlib import Path

from neuralmech.record.schema import RecordError

QUIET_SECONDS = 0.03  # a commit is over in less
PATIENCE_SECONDS = 20.0


def is_being_written(path: Path) -> bool:
    """Whether a living process has the record open for writing: HDF5 holds a lock on it as long."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system: then be careful
        return True
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
    return False


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
