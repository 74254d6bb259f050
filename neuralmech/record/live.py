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
    """Bytes of a file, read while nobody wrote to it: its time stamp was old before and the same after.

    Raises
    ------
    RecordError
        If the file is written without a pause.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        before = path.stat()
        if time.time() - before.st_mtime >= QUIET_SECONDS:
            data = path.read_bytes()
            after = path.stat()
            if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):
                return data
        time.sleep(QUIET_SECONDS / 3)
    raise RecordError(f"{path} is being written without a pause; try again later or stop the run")
