"""What holds a record together: all of its file but the chunks that are whole.

HDF5 rewrites its headers, counters and indices in place, so a power cut can leave them half old, half new. Whole
chunks it writes once and never moves. A copy of the rest, synced beside a checkpoint, makes a file readable again that
was torn, cut short or damaged anywhere but in its chunks.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralmech.record.files import Placed, write_whole
from neuralmech.record.schema import RecordError

MAGIC = b"neuralmech skeleton 1\n"


@dataclass(frozen=True)
class Skeleton:
    """Size of the file at a checkpoint, and what stood outside its whole chunks: (offset, bytes), in order."""

    size: int
    pieces: Sequence[tuple[int, bytes]]

    @classmethod
    def of(cls, fd: int, size: int, chunks: Sequence[tuple[int, int]]) -> Skeleton:
        """Copy what an open file holds outside `chunks`, (offset, bytes)."""
        return cls(size, [(start, os.pread(fd, end - start, start)) for start, end in _gaps(size, chunks)])

    def save(self, path: Path) -> None:
        """Write it whole or not at all, with a checksum."""
        table = np.array([self.size, *(n for start, piece in self.pieces for n in (start, len(piece)))], "<i8")
        content = len(table).to_bytes(8, "little") + table.tobytes() + b"".join(piece for _, piece in self.pieces)
        write_whole(path, MAGIC + zlib.crc32(content).to_bytes(4, "little") + content)

    @classmethod
    def load(cls, path: Path) -> Skeleton:
        """Read it.

        Raises
        ------
        RecordError
            If it is not there or damaged.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RecordError(f"{path} cannot be read ({error.strerror})") from None
        content = memoryview(data)[len(MAGIC) + 4 :]
        numbers = int.from_bytes(content[:8], "little")
        whole = MAGIC + zlib.crc32(content).to_bytes(4, "little") == data[: len(MAGIC) + 4]
        if not whole or numbers % 2 == 0 or 8 * (numbers + 1) > len(content):
            raise RecordError(f"{path} is damaged")
        size, *table = np.frombuffer(content[8 : 8 * (numbers + 1)], "<i8").tolist()
        lengths, at = table[1::2], 8 * (numbers + 1)
        ends = (at + np.cumsum(lengths)).tolist()
        pieces = [(a, bytes(content[b - n : b])) for a, n, b in zip(table[::2], lengths, ends, strict=True)]
        if any(n < 0 for n in table) or any(a + len(piece) > size for a, piece in pieces):
            raise RecordError(f"{path} is damaged")
        return cls(size, pieces)

    def write_to(self, path: Path) -> None:
        """Put it back into a record's file."""
        with path.open("r+b") as file:
            for start, piece in self.pieces:
                file.seek(start)
                file.write(piece)
            file.truncate(self.size)
            file.flush()
            os.fsync(file.fileno())


class Mended(Placed):
    """A record's file as it would read with its skeleton put back; what it lacks reads as zeros."""

    def __init__(self, path: Path, skeleton: Skeleton) -> None:
        super().__init__(skeleton.size)
        self._file, self._skeleton = path.open("rb"), skeleton
        self._starts = np.array([start for start, _ in skeleton.pieces], dtype=np.int64)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read up to the end of the buffer."""
        into, start = memoryview(buffer).cast("B"), self._at
        length = max(0, min(len(into), self._skeleton.size - start))
        self._file.seek(start)
        found = self._file.read(length)
        into[:length] = found + bytes(length - len(found))
        first = max(0, int(np.searchsorted(self._starts, start, "right")) - 1)
        for offset, piece in self._skeleton.pieces[first:]:
            if offset >= start + length:
                break
            a, b = max(offset, start), min(offset + len(piece), start + length)
            if a < b:
                into[a - start : b - start] = piece[a - offset : b - offset]
        self._at += length
        return length

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _gaps(size: int, chunks: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Start and end of what lies between chunks.

    Examples
    --------
    >>> list(_gaps(100, [(40, 20), (60, 30), (10, 5)]))
    [(0, 10), (15, 40), (90, 100)]
    """
    at = 0
    for start, length in sorted(chunks):
        if start > at:
            yield at, start
        at = start + length
    if at < size:
        yield at, size
