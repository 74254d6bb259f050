"""Write a record so that a crash at any moment loses nothing that was committed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
from jaxtyping import Float64, Shaped
from numpy.typing import NDArray

from neuralmech.record.files import disk_error, locking_of, patiently, reserve, write_whole
from neuralmech.record.layout import CHECKSUM_BYTES, FORMATS, blank, set_attribute, set_status
from neuralmech.record.schema import (
    BLOCK,
    EVALUATION_COLUMNS,
    FAILURE_FILE,
    FILE_NAME,
    STEP_COLUMNS,
    FamilyLayout,
    Position,
    RecordError,
    Rows,
    stored,
    tables,
)
from neuralmech.record.skeleton import Skeleton
from neuralmech.words import kind_and_line

Later = Callable[[], tuple[Mapping, Mapping] | None]  # makes rows when it is called, or none
SLACK_BYTES = 1 << 18  # what a write may take besides its data


class RecordWriter:
    """Append rows to ``folder/record.h5``, whole chunks at a time.

    Each chunk goes data → flush → ``committed`` → flush, so ``committed`` never counts a row that is not wholly in
    the file. Rows that do not fill a chunk wait in memory until it is full, `commit` or `close`; whole chunks are
    never written again, and nothing that was freed is used again, so a crash finds every committed one in place.

    Parameters
    ----------
    attributes
        Of the file: what ran, where, with which versions.
    families
        The datasets of each family.
    block
        Rows per chunk.
    compress
        Whether to compress charges: a fifth less to write for ten times the work, as most bits of a drive are noise.

    Raises
    ------
    RecordError
        If the folder already holds a record.
    OSError
        While writing, if there is no room; the file holds what was committed before.
    """

    def __init__(
        self,
        folder: str | Path,
        attributes: Mapping[str, object],
        families: Mapping[str, FamilyLayout],
        block: int = BLOCK,
        *,
        compress: bool = False,
    ) -> None:
        self.path = Path(folder) / FILE_NAME
        if self.path.exists():
            raise RecordError(f"{self.path} exists already; choose another run folder with hydra.run.dir=")
        write_whole(self.path, blank(attributes, families, block, compress=compress))
        self._open()

    def _open(self) -> None:
        locking = locking_of(self.path)
        options: dict[str, Any] = {"libver": FORMATS, "rdcc_nbytes": 0, "locking": locking}  # whole chunks, no cache
        self._file = patiently(lambda: h5py.File(self.path, "r+", **options))
        self._fd = self._file.id.get_vfd_handle()
        self.rows = self._whole = self._evaluations = 0
        self._waiting: list[Rows] = []  # none or one
        self._chunks: dict[str, list[tuple[int, int]]] = {}  # where the whole ones are, of each dataset
        try:
            self._bind(self._file)
        except BaseException:
            self.abandon()
            raise

    def _bind(self, file: h5py.File) -> None:
        self._block = file["steps/step"].chunks[0]
        steps = file["steps"]
        self._steps = {name: steps[there] for name in STEP_COLUMNS if (there := stored(name, steps))}
        self._evaluation = {name: file["evaluation"][name] for name in EVALUATION_COLUMNS}
        self._charges = {
            family: {k: d for k, d in group.items() if not k.endswith("index")}
            for family, group in tables(file).items()
        }
        self._committed, self._evaluation_committed = file["committed"], file["evaluation"]["committed"]

    @classmethod
    def resume(
        cls, folder: str | Path, position: Position, attributes: Mapping[str, object] | None = None
    ) -> RecordWriter:
        """Open a record to continue it at a position; rows and evaluations behind it are cut off.

        `attributes` replace those of the file where they differ.

        Raises
        ------
        RecordError
            If the record does not reach the position.
        """
        record = cls.__new__(cls)
        record.path = Path(folder) / FILE_NAME
        record._open()
        try:
            with record._room(0):
                record._cut(position)
                for key, value in (attributes or {}).items():
                    set_attribute(record._file, key, value)
                record.sync()
            (record.path.parent / FAILURE_FILE).unlink(missing_ok=True)  # why it had not been finished
        except BaseException:
            record.abandon()
            raise
        return record

    @classmethod
    def extend(cls, folder: str | Path) -> RecordWriter:
        """Open a record to continue it behind its last row."""
        record = cls.__new__(cls)
        record.path = Path(folder) / FILE_NAME
        record._open()
        try:
            with record._room(0):
                record._cut(record._end())
        except BaseException:
            record.abandon()
            raise
        return record

    def _end(self) -> Position:
        """Behind all that is committed; rows that fill no chunk wait for theirs to fill."""
        rows, evaluations = self._committed[()].item(), self._evaluation_committed[()].item()
        whole = rows // self._block * self._block
        steps = {name: d[whole:rows] for name, d in self._steps.items()}
        charges = {f: {s: d[whole:rows] for s, d in signals.items()} for f, signals in self._charges.items()}
        return Position(whole, evaluations, Rows(steps, charges))

    def _cut(self, position: Position) -> None:
        rows, evaluations = self._committed[()].item(), self._evaluation_committed[()].item()
        if rows < position.rows or evaluations < position.evaluations:
            raise RecordError(f"{self.path} holds {rows} rows, fewer than the {position.rows} of the checkpoint")
        self._committed[()], self._evaluation_committed[()] = position.rows, position.evaluations
        set_status(self._file, "running")
        self._flush()  # before anything is cut off
        for dataset in [*self._steps.values(), *(d for signals in self._charges.values() for d in signals.values())]:
            dataset.resize(position.rows, axis=0)
        for dataset in self._evaluation.values():
            dataset.resize(position.evaluations, axis=0)
        self.sync()
        self._whole, self._evaluations = position.rows, position.evaluations
        self._waiting = [position.waiting] if len(position.waiting) else []
        self.rows = self._whole + len(position.waiting)

    def append(
        self,
        steps: Mapping[str, Shaped[NDArray, " rows"]],
        charges: Mapping[str, Mapping[str, Float64[NDArray, "rows charges"]]],
    ) -> None:
        """Append rows: a column for every entry of `steps`, (rows, charges) for every signal."""
        rows = Rows(steps, charges)
        if self._waiting:
            rows = Rows.joined([*self._waiting, rows])
        whole = len(rows) // self._block * self._block
        if whole:
            self._write(rows[:whole])
            self._whole += whole
        # a copy: the caller's buffers are used again
        self._waiting = [Rows.joined([rows[whole:]])] if whole < len(rows) else []
        self.rows = self._whole + len(rows) - whole

    def append_later(self, rows: Later, done: Callable[[], object] | None = None) -> None:
        """Append what `rows` returns, unless it is None; a `BackgroundWriter` calls it in its thread."""
        if block := rows():
            self.append(*block)
        if done:
            done()

    def append_evaluation(self, step: int, loss: float, accuracy: float) -> None:
        """Append one evaluation on held-out data."""
        with self._room(0):
            end = self._evaluations + 1
            for name, value in (("step", step), ("loss", loss), ("accuracy", accuracy)):
                self._evaluation[name].resize(end, axis=0)
                self._evaluation[name][self._evaluations :] = value
            self._commit(self._evaluation_committed, end)
            self._evaluations = end

    def commit(self) -> None:
        """Write the rows that wait for their chunk to fill, for readers; they keep waiting and are written again."""
        for rows in self._waiting:
            self._write(rows)

    def position(self) -> Position:
        """Where the record is: what a checkpoint needs to continue it. Whole chunks are on disk when it returns."""
        self.sync()
        return Position(self._whole, self._evaluations, self._waiting[0] if self._waiting else Rows({}, {}))

    def sync(self) -> None:
        """Flush to the disk itself, so that a power cut loses nothing either."""
        self._flush()
        os.fsync(self._fd)

    def skeleton(self) -> Skeleton:
        """Copy what holds the file together, for a checkpoint at the present `position`.

        Chunks of rows that still wait are left out: the checkpoint has those rows. Of the evaluations, which are
        written one by one, the chunk that is not full is in the copy.
        """
        charges = (d for signals in self._charges.values() for d in signals.values())
        rows = [self._of_chunks(d, self._whole) for d in (*self._steps.values(), *charges)]
        evaluations = [self._of_chunks(d, self._evaluations) for d in self._evaluation.values()]
        chunks = [place for found in (*rows, *evaluations) for place in found]
        return Skeleton.of(self._fd, os.fstat(self._fd).st_size, chunks)

    def _of_chunks(self, dataset: h5py.Dataset, rows: int) -> list[tuple[int, int]]:
        """Offset and size of a dataset's whole chunks; they never move, so only new ones are asked for.

        Without their checksums, which belong to the copy: a chunk that was lost reads as zeros, whose checksum is 0.
        """
        known = self._chunks.setdefault(dataset.name, [])
        parts = [range(0, n, c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
        first = len(known) // math.prod(map(len, parts)) * self._block
        for start in range(first, rows - rows % self._block, self._block):
            places = (dataset.id.get_chunk_info_by_coord((start, *rest)) for rest in product(*parts))
            known += [(place.byte_offset, place.size - CHECKSUM_BYTES) for place in places]
        return known

    def _write(self, rows: Rows) -> None:
        with self._room(rows.bytes):
            for name, dataset in self._steps.items():
                _put(dataset, self._whole, rows.steps[name])
            for family, signals in self._charges.items():
                for signal, dataset in signals.items():
                    _put(dataset, self._whole, rows.charges[family][signal])
            self._commit(self._committed, self._whole + len(rows))

    def _commit(self, counter: h5py.Dataset, value: int) -> None:
        self._flush()
        counter[()] = value
        self._flush()

    def _flush(self) -> None:
        self._file.flush()

    @contextmanager
    def _room(self, size: int) -> Iterator[None]:
        """Reserve room for a write: HDF5 cannot be trusted with a disk that fills up under its hands."""
        try:
            reserve(self._fd, size + SLACK_BYTES)
            yield
            os.ftruncate(self._fd, self._file.id.get_filesize())
        except (OSError, RuntimeError) as error:
            self.abandon()
            raise disk_error(error, self.path) from error

    def abandon(self) -> None:
        """Let go of the file as it is on disk; what HDF5 still wants to write is lost."""
        if not self._file:
            return
        end = self._file.id.get_filesize()
        os.dup2(nowhere := os.open(os.devnull, os.O_RDWR), self._fd)
        os.close(nowhere)
        with suppress(RuntimeError, OSError):  # it cannot truncate /dev/null
            self._file.close()
        with suppress(OSError):  # HDF5 reads no file that is shorter than it says
            if self.path.stat().st_size < end:
                os.truncate(self.path, end)

    def close(self, status: str = "complete") -> None:
        """Write the rows that wait and close the file; `status` says how the run ended."""
        if self._file:
            self.commit()
            with self._room(0):
                set_status(self._file, status)
                self.sync()
            self._file.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("complete" if error is None else f"stopped: {kind_and_line(error)}")


def _put(dataset: h5py.Dataset, start: int, values: NDArray) -> None:
    """Write rows from `start`, the first of a chunk, to the end of a dataset; it grows where it must."""
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values
