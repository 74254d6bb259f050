"""Files below HDF5: written whole or not at all, locked, given room, copied while another process writes."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from neuralmech.record.schema import FILE_NAME, LOCK_FILE, PART, RecordError

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is whole or not there, whatever happens.

    Temporary file, sync, rename, sync of the folder.

    Raises
    ------
    OSError
        If there is no room; nothing is left of the file then.
    """
    temporary = path.with_suffix(".tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a process that was killed; or a link, which must not be followed
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync_folder(path.parent)


class Placed(io.RawIOBase):
    """What can be read at any place, up to `size`."""

    def __init__(self, size: int) -> None:
        self._at, self._size = 0, size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that every place of it can be read."""
        return True


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk, after a file in it was renamed."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reserve(fd: int, size: int) -> None:
    """Make sure that a file can grow by `size` bytes; the caller gives back what was not needed."""
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, os.fstat(fd).st_size, size)


def parts_of(folder: Path) -> list[Path]:
    """Folders with the records of a training's later parts, in their order."""
    found = [path.parent for path in folder.glob(f"{PART}*/{FILE_NAME}")]
    numbers = {path: path.name.removeprefix(PART) for path in found}
    return sorted((path for path in found if numbers[path].isdecimal()), key=lambda path: int(numbers[path]))


def disk_error(error: Exception, path: Path) -> OSError:
    """The error of a write as one that names the file; HDF5 has the errno in its text only."""
    code = error.errno if isinstance(error, OSError) else None
    if code is None:
        code = next((c for c in FULL if os.strerror(c) in str(error)), errno.EIO)
    return OSError(code, os.strerror(code), str(path))


T = TypeVar("T")
GLANCE_SECONDS = 0.5
QUIET_SECONDS = 0.03  # a commit is over in less
PATIENCE_SECONDS = 20.0
COMMIT_SECONDS = 600.0  # a run that lives has committed something by then: it does once a minute
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # a file system without flock


def is_being_written(path: Path) -> bool:
    """Whether a living process has the record open for writing: HDF5 holds a lock on it as long.

    Where there are no locks a record counts as being written until nobody has for a while.
    """
    with path.open("rb") as file:
        return _is_held(file.fileno())


def is_in_use(folder: Path) -> bool:
    """Whether a living process trains in a run folder, which it holds from before there is a record until the end."""
    for name in (LOCK_FILE, FILE_NAME):
        try:
            fd = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # it is not there, or not ours to open
            continue
        try:
            if _is_held(fd):
                return True
        finally:
            os.close(fd)
    return False


def _is_held(fd: int) -> bool:
    try:
        if try_lock(fd, shared=True):
            return False
    except BlockingIOError:
        return True
    return time.time() - os.fstat(fd).st_mtime < COMMIT_SECONDS


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Lock a file if nobody else has, until it is closed; returns whether its file system has locks at all.

    Raises
    ------
    BlockingIOError
        If somebody has locked it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return False
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise BlockingIOError(*error.args) from None
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def locking_of(path: Path) -> bool | None:
    """What to tell HDF5, which opens no file that it cannot lock, of a file: None for its own way, False for none.

    Raises
    ------
    RecordError
        If another program has the file open, however it does.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        return None if patiently(lambda: try_lock(fd)) else False
    except BlockingIOError:
        raise RecordError(f"{path} is open in another program; close it there (a notebook, a viewer)") from None
    finally:
        os.close(fd)  # lets go of it


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
    while True:
        before = quiet_state(path, end)
        data = path.read_bytes()
        if state_of(path) == before:
            return data


def quiet_state(path: Path, end: float) -> tuple[int, int]:
    """State of a file to which nobody has written for a while.

    Raises
    ------
    RecordError
        If there is no such while until the clock (`time.monotonic`) says `end`.
    """
    seen, since = None, 0.0
    while time.monotonic() < end:
        now = state_of(path)
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since >= QUIET_SECONDS:
            return now
        time.sleep(QUIET_SECONDS / 6)
    raise never_quiet(path)


def never_quiet(path: Path) -> RecordError:
    """What to say of a file that is written all the time."""
    return RecordError(f"{path} is being written without a pause; try again later or stop the run")


def state_of(path: Path) -> tuple[int, int]:
    """What changes when somebody writes to a file: its time stamp and its size."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size
