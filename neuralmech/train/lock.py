"""One process to a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuralmech.errors import UserError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the kernel lets go of it when the process ends, however it ends.

    Raises
    ------
    UserError
        If another process trains there.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    (folder / "checkpoints").mkdir(exist_ok=True)
    with (folder / "checkpoints/.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder} is in use by another process that trains there; wait for it to end") from None
        yield
