"""Write a record so that a crash at any moment loses nothing that was committed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from numpy.typing import NDArray

from neuralmech.record.schema import (
    EVALUATION_COLUMNS,
    FILE_NAME,
    FORMAT,
    SCHEMA_VERSION,
    STEP_COLUMNS,
    RecordError,
)

CHUNK_BYTES = 1 << 20
FILTERS = {"compression": "lzf", "shuffle": True}  # built into every h5py


@dataclass(frozen=True)
class FamilyLayout:
    """What a family's datasets look like: one column per charge, one dataset per signal.

    A column of a matrix-valued charge is its entry (channel, partner); `norms` names the sites whose Frobenius
    norms are recorded besides.
    """

    sites: Sequence[str]
    channels: Sequence[int] | NDArray[np.int64]
    signals: Sequence[str]
    linear: bool
    partners: Sequence[int] | NDArray[np.int64] | None = None
    norms: Sequence[str] = ()


class RecordWriter:
    """Append blocks of rows to ``folder/record.h5``.

    Each block goes data → flush → ``committed`` → flush, so ``committed`` never counts a row that is not
    wholly in the file.

    Raises
    ------
    RecordError
        If the folder already holds a record.
    """

    def __init__(
        self,
        folder: str | Path,
        attributes: Mapping[str, object],
        families: Mapping[str, FamilyLayout],
        block: int = 256,
    ) -> None:
        path = Path(folder) / FILE_NAME
        try:
            # Not "latest": such a file refuses to open again after a kill.
            self._file = h5py.File(path, "x", libver=("earliest", "v110"))
        except FileExistsError:
            raise RecordError(f"{path} exists already; choose another run folder with hydra.run.dir=") from None
        self.path = path
        self.rows = 0
        self._evaluations = 0
        self._block = block
        self._write_attributes(attributes)
        self._steps = self._columns("steps", STEP_COLUMNS)
        self._evaluation = self._columns("evaluation", EVALUATION_COLUMNS)
        self._file.create_group("charges")
        self._charges = {name: self._family(name, layout) for name, layout in families.items()}
        self._committed = self._file.create_dataset("committed", data=np.int64(0))
        self._evaluation_committed = self._file["evaluation"].create_dataset("committed", data=np.int64(0))
        self._file.flush()

    def _write_attributes(self, attributes: Mapping[str, object]) -> None:
        self._file.attrs["format"] = FORMAT
        self._file.attrs["schema_version"] = SCHEMA_VERSION
        self._file.attrs["status"] = "running"
        for key, value in attributes.items():
            self._file.attrs[key] = json.dumps(value) if isinstance(value, dict) else value

    def _columns(self, group: str, columns: Mapping[str, type]) -> dict[str, h5py.Dataset]:
        target = self._file.create_group(group)
        return {
            name: target.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(max(self._block, 256),))
            for name, dtype in columns.items()
        }

    def _family(self, name: str, layout: FamilyLayout) -> dict[str, h5py.Dataset]:
        group = self._file.create_group(f"charges/{name}")
        group.attrs["form"] = "linear" if layout.linear else "quadratic"
        columns = {"site": (h5py.string_dtype(), layout.sites), "channel": (np.int64, layout.channels)}
        if layout.partners is not None:
            columns["partner"] = (np.int64, layout.partners)
        dtype = np.dtype([(name, kind) for name, (kind, _) in columns.items()])
        rows = list(zip(*(values for _, values in columns.values()), strict=True))
        group.create_dataset("index", data=np.array(rows, dtype=dtype))
        datasets = {signal: self._signal(group, signal, len(layout.sites)) for signal in layout.signals}
        if layout.norms:
            names = np.array(list(layout.norms), dtype=h5py.string_dtype())
            group.create_dataset("frobenius_index", data=names)
            datasets["frobenius"] = self._signal(group, "frobenius", len(layout.norms))
        return datasets

    def _signal(self, group: h5py.Group, name: str, n: int) -> h5py.Dataset:
        chunks = (self._block, max(1, min(n, CHUNK_BYTES // (8 * self._block))))
        return group.create_dataset(name, (0, n), np.float64, maxshape=(None, n), chunks=chunks, **FILTERS)

    def append(self, steps: Mapping[str, NDArray], charges: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> None:
        """Append one block of rows: a column for every entry of `steps`, (rows, charges) for every signal."""
        end = self.rows + len(steps["step"])
        for name, dataset in self._steps.items():
            _extend(dataset, self.rows, end, steps[name])
        for family, signals in self._charges.items():
            for signal, dataset in signals.items():
                _extend(dataset, self.rows, end, charges[family][signal])
        self._commit(self._committed, end)
        self.rows = end

    def append_evaluation(self, step: int, loss: float, accuracy: float) -> None:
        """Append one evaluation on held-out data."""
        end = self._evaluations + 1
        for name, value in (("step", step), ("loss", loss), ("accuracy", accuracy)):
            _extend(self._evaluation[name], self._evaluations, end, np.array([value]))
        self._commit(self._evaluation_committed, end)
        self._evaluations = end

    def _commit(self, counter: h5py.Dataset, value: int) -> None:
        self._file.flush()
        counter[()] = value
        self._file.flush()

    def close(self, status: str = "complete") -> None:
        """Close the file; `status` says how the run ended."""
        if self._file:
            self._file.attrs["status"] = status
            self._file.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("complete" if error is None else f"stopped: {type(error).__name__}")


def _extend(dataset: h5py.Dataset, start: int, end: int, values: NDArray) -> None:
    dataset.resize(end, axis=0)
    dataset[start:end] = values
