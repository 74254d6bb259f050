"""The record's file below HDF5: how it is created, room for what is to be written, errors of the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from neuralmech.record.schema import RecordError

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@contextmanager
def create(path: Path) -> Iterator[Path]:
    """Make an empty HDF5 file under another name to be filled; it gets its own name at the end, or vanishes.

    The oldest superblock that can say that freed space stays unused: newer ones refuse to open after a kill.

    Raises
    ------
    RecordError
        If it exists.
    """
    if path.exists():
        raise RecordError(f"{path} exists already; choose another run folder with hydra.run.dir=")
    unfinished = path.with_suffix(".new")
    try:
        unfinished.unlink(missing_ok=True)  # of a process that was killed; or a link, which must not be followed
        h5py.File(unfinished, "x", libver=("earliest", "v110"), fs_strategy="none").close()
        yield unfinished
        unfinished.replace(path)
        sync_folder(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


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
