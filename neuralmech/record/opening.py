"""Ways to open a record: one that is finished, one that a running process writes, one cut off by a crash."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import TypeVar

import h5py

from neuralmech.record.files import PATIENCE_SECONDS, is_being_written, never_quiet, quiet_copy
from neuralmech.record.reader import Record
from neuralmech.record.safety import check_file, naming_damage, remedy
from neuralmech.record.schema import FILE_NAME, RecordError
from neuralmech.record.skeleton import Mended, Skeleton
from neuralmech.record.still import StillFile
from neuralmech.words import first_line

T = TypeVar("T")


def open_record(path: str | Path) -> Record:
    """Open a run folder or a record file for reading.

    Raises
    ------
    RecordError
        If there is no record, the file is damaged or no record, or a newer version wrote it.

    Examples
    --------
    ``with open_record("outputs/run") as r: r.charges("scale").value[:]``
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise RecordError(f"{path} does not exist; give a run folder that `neuralmech train` wrote")
    return snapshot(path) if is_being_written(path) else _open(path, path)


def can_mend(path: Path, skeleton: Skeleton, rows: int, evaluations: int) -> bool:
    """Whether so many rows and evaluations could be read with a skeleton put back into a record's file."""
    try:
        with Mended(path, skeleton) as source, _open(source, path) as record:
            return record.readable_rows() >= rows and record.readable_evaluations() >= evaluations
    except RecordError:
        return False


def _open(source: Path | BytesIO | Mended | StillFile, path: Path) -> Record:
    try:
        file = h5py.File(source, "r", locking=False)
    except OSError as error:
        if "locking flag" in str(error):
            raise RecordError(f"{path} is open in this program already, by h5py; close it there") from None
        raise RecordError(f"{path} is not a readable HDF5 file ({first_line(error)}); {remedy(path)}") from None
    try:
        with naming_damage(path, remedy(path)):
            check_file(file, path)
            return Record(file, path)
    except BaseException:
        file.close()
        raise


def snapshot(path: Path) -> Record:
    """Read a record that a running process writes, as it was at one moment, from a copy in memory.

    Reading the file itself could meet its index half rewritten: ``committed`` guards rows, not that.
    """
    return _open(BytesIO(quiet_copy(path)), path)


def glimpse(path: Path, read: Callable[[Record], T], patience: float = PATIENCE_SECONDS) -> T:
    """Read a record in place, also one that a running process writes: a little of it, between two of its writes.

    Where somebody writes meanwhile, `read` is broken off and called again; what it keeps of its own must bear that.
    What it returns is of one moment. Unlike `snapshot` this takes no copy, however long the record is.

    Raises
    ------
    RecordError
        If there is no such record, it is damaged, or is written without a pause that is long enough.
    """
    end = monotonic() + patience
    while True:
        if not is_being_written(path):
            with _open(path, path) as record:
                return read(record)
        source = StillFile(path)
        try:
            with _open(source, path) as record:
                return read(record)
        except Exception:
            if not source.changed:
                raise
            if monotonic() > end:
                raise never_quiet(path) from None
        finally:
            source.close()
