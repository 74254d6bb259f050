"""Files below HDF5: written whole or not at all, room for what is to be written, errors of the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

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


def disk_error(error: Exception, path: Path) -> OSError:
    """The error of a write as one that names the file; HDF5 has the errno in its text only."""
    code = error.errno if isinstance(error, OSError) else None
    if code is None:
        code = next((c for c in FULL if os.strerror(c) in str(error)), errno.EIO)
    return OSError(code, os.strerror(code), str(path))
