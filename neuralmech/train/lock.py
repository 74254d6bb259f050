"""One process to a run folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuralmech.errors import UserError
from neuralmech.record import FILE_NAME
from neuralmech.record.live import patiently, try_lock
from neuralmech.record.schema import LOCK_FILE


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the kernel lets go of it when the process ends, however it ends.

    Nothing there may be a link: the folder may come from somewhere else, and what is written goes where links point.

    Raises
    ------
    UserError
        If another process trains there, or its checkpoints or the lock are links to another place.
    """
    for path in (folder / FILE_NAME, folder / "checkpoints"):
        if path.is_symlink():
            raise UserError(f"{path} is a link to another place; put what it points to there instead")
    (folder / "checkpoints").mkdir(exist_ok=True)
    handle = _open(folder / LOCK_FILE)
    with open(handle, "rb"):  # noqa: PTH123  (closes it)
        try:
            has_locks = patiently(lambda: try_lock(handle))
        except BlockingIOError:
            raise UserError(f"{folder} is in use by another process that trains there; wait for it to end") from None
        if not has_locks:
            from neuralmech.train.run import say  # takes torch along

            say(f"{folder} is on a file system without locks: see to it that no second process trains there")
        yield


def _open(path: Path) -> int:
    """Open the lock, which stays empty, or make it; what is there is not written to."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path} is a link to another place; remove it") from None
