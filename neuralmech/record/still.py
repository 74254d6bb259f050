"""A file that another process writes, read in place as long as it stays as it is."""

from __future__ import annotations

import time
from pathlib import Path

from neuralmech.record.files import PATIENCE_SECONDS, Placed, quiet_state, state_of


class StillFile(Placed):
    """A file as it was when it was opened: once somebody has written to it, reading fails.

    So nobody gets a byte that was not there at that moment: the file's time stamp is looked at after each read, and had
    been the same for a while before the first, so that a later write cannot have the same.

    Attributes
    ----------
    changed
        Whether somebody has written.

    Raises
    ------
    RecordError
        If the file is written without a pause.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.changed = path, False
        self._state = quiet_state(path, time.monotonic() + PATIENCE_SECONDS)
        super().__init__(self._state[1])
        self._file = path.open("rb", buffering=0)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read up to the end of the buffer.

        Raises
        ------
        OSError
            If the file has changed.
        """
        self._file.seek(self._at)
        count = self._file.readinto(buffer) or 0
        self.changed = self.changed or state_of(self._path) != self._state
        if self.changed:
            raise OSError("somebody has written to the file")
        self._at += count
        return count

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()
