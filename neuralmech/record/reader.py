"""Read a record, also one that is still being written or was cut off by a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from io import BytesIO
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuralmech.record.live import is_being_written, quiet_copy
from neuralmech.record.safety import check_dataset, check_link, check_name, plain_yaml, printable
from neuralmech.record.schema import (
    EVALUATION_COLUMNS,
    FILE_NAME,
    FORMAT,
    SCHEMA_VERSION,
    STEP_COLUMNS,
    RecordError,
)


class Checked:
    """A dataset whose damage is named when it is read."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape = dataset.shape

    def __getitem__(self, key: Any) -> NDArray:
        try:
            return self._dataset[key]
        except (OSError, RuntimeError) as error:
            name, file = self._dataset.name, self._dataset.file.filename
            raise RecordError(f"{file} is damaged in {name} ({_short(error)}); restore a copy") from None


class Signal:
    """A (rows, charges) dataset cut off at the committed rows; slicing reads from the file."""

    def __init__(self, dataset: h5py.Dataset, rows: int) -> None:
        self._dataset = Checked(dataset)
        self.shape = (rows, dataset.shape[1])

    def __getitem__(self, key: Any) -> NDArray[np.float64]:
        rows, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if rows is Ellipsis:
            rows = slice(None)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            return self._dataset[(slice(start, max(start, stop), step), *rest)]
        if not -self.shape[0] <= rows < self.shape[0]:
            raise IndexError(f"row {rows} is outside the {self.shape[0]} committed rows")
        return self._dataset[(rows % self.shape[0], *rest)]

    def __len__(self) -> int:
        return self.shape[0]


class Charges:
    """One family's charges: the signals as attributes, and what each column is."""

    def __init__(self, name: str, group: h5py.Group, rows: int) -> None:
        self.name = name
        self.is_linear = group.attrs.get("form") == "linear"
        self._group = group
        self._rows = rows
        self.signals = tuple(k for k in group if not k.endswith("index") and k != "frobenius")

    def __getattr__(self, signal: str) -> Signal:
        if signal.startswith("_") or signal not in self.signals:
            raise AttributeError(f"{self.name} charges have no signal {signal!r}; there are {', '.join(self.signals)}")
        return Signal(self._group[signal], self._rows)

    @cached_property
    def index(self) -> pd.DataFrame:
        """Site and channel of each column; for the entries of a matrix also the partner."""
        raw = Checked(self._group["index"])[:]
        sites = [_text(name) for name in raw["site"]]
        numbers = {
            name: raw[name].astype(np.int64) for name in ("channel", "partner") if name in (raw.dtype.names or ())
        }
        return pd.DataFrame({"site": sites, **numbers})

    @cached_property
    def norm_sites(self) -> tuple[str, ...]:
        """Sites whose Frobenius norms are recorded, in the order of the columns of `frobenius`."""
        return tuple(_text(name) for name in self._group.get("frobenius_index", ()))

    @property
    def frobenius(self) -> Signal:
        """Frobenius norm of every matrix-valued charge: (rows, sites)."""
        return Signal(self._group["frobenius"], self._rows)

    def __len__(self) -> int:
        return self._group["index"].shape[0]

    def to_pandas(self, signal: str = "value") -> pd.DataFrame:
        """One signal as a frame: a row per recorded row, columns (site, channel)."""
        return pd.DataFrame(getattr(self, signal)[:], columns=pd.MultiIndex.from_frame(self.index))


class Record:
    """A record opened for reading; use `open_record`."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self.path = path
        self.rows = int(file["committed"][()])
        self.status = printable(str(file.attrs.get("status", "running")))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run."""
        try:
            loaded = plain_yaml(str(self._file.attrs["config"]))
        except (KeyError, OSError, RecordError) as error:
            raise RecordError(f"{self.path} is damaged ({_short(error)}); restore a copy") from None
        return loaded if isinstance(loaded, dict) else {}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Git revision, library versions, seed and device of the run."""
        versions = json.loads(str(self._file.attrs.get("versions", "{}")))
        rest = {k: self._file.attrs[k] for k in ("git_revision", "seed", "device") if k in self._file.attrs}
        return {**rest, "versions": versions}

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the recorded families."""
        order = ("translation", "scale", "rescale", "linear")
        found = list(self._file["charges"])
        return tuple(sorted(found, key=lambda f: order.index(f) if f in order else len(order)))

    def charges(self, family: str) -> Charges:
        """Return the charges of a family.

        Raises
        ------
        KeyError
            If the record holds no such family.
        """
        if family not in self.families:
            raise KeyError(f"{self.path} holds no {family!r} charges; it holds {', '.join(self.families)}")
        return Charges(family, self._file["charges"][family], self.rows)

    def steps(self, start: int = 0, stop: int | None = None) -> dict[str, NDArray]:
        """Columns of ``/steps`` between two rows."""
        end = self.rows if stop is None else min(stop, self.rows)
        return {name: Checked(self._file["steps"][name])[start:end] for name in STEP_COLUMNS}

    def step_numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Step of each of some rows, given in ascending order."""
        return Checked(self._file["steps"]["step"])[rows]

    def evaluation(self) -> pd.DataFrame:
        """Step, loss and accuracy on held-out data."""
        group = self._file["evaluation"]
        end = int(group["committed"][()])
        return pd.DataFrame({name: Checked(group[name])[:end] for name in EVALUATION_COLUMNS})

    def steps_frame(self) -> pd.DataFrame:
        """``/steps`` as a frame."""
        return pd.DataFrame(self.steps())

    def blocks(self, rows: int = 1024) -> Iterator[slice]:
        """Consecutive row ranges that cover the record."""
        for start in range(0, self.rows, rows):
            yield slice(start, min(start + rows, self.rows))

    def finite_rows(self) -> int:
        """Rows before the first in which the loss or a charge is not finite."""
        end = self.rows
        for rows in self.blocks():
            bad = np.flatnonzero(~np.isfinite(self.steps(rows.start, rows.stop)["loss"]))
            if bad.size:
                end = rows.start + int(bad[0])
                break
        while end and not all(np.isfinite(d[end - 1]).all() for d in self._signals()):
            end -= 1  # a gradient that is not finite comes a row before such a loss
        return end

    def cut(self, rows: int) -> None:
        """Read on as if the record ended after so many rows."""
        self.rows = min(self.rows, rows)

    def readable_rows(self) -> int:
        """Rows before the first that is missing in the file or does not match its checksum. Reads everything."""
        columns = [self._file["steps"][name] for name in STEP_COLUMNS]
        rows = self.rows
        for dataset in [*columns, *self._signals()]:
            rows = min(rows, _readable(dataset, rows))
        return rows

    def readable_evaluations(self) -> int:
        """The same for evaluations."""
        rows = int(self._file["evaluation"]["committed"][()])
        return min(_readable(self._file["evaluation"][name], rows) for name in EVALUATION_COLUMNS)

    def _signals(self) -> list[h5py.Dataset]:
        return [d for g in self._file["charges"].values() for k, d in g.items() if not k.endswith("index")]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


def _open(source: Path | BytesIO, path: Path) -> Record:
    try:
        file = h5py.File(source, "r", locking=False)
    except OSError as error:
        raise RecordError(f"{path} is not a readable HDF5 file ({_short(error)}); give a run folder") from None
    try:
        _check(file, path)
        return Record(file, path)
    except BaseException:
        file.close()
        raise


def snapshot(path: Path) -> Record:
    """Read a record that a running process writes, as it was at one moment, from a copy in memory.

    Reading the file itself could meet its index half rewritten: ``committed`` guards rows, not that.
    """
    return _open(BytesIO(quiet_copy(path)), path)


def _check(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != FORMAT:
        raise RecordError(f"{path} is an HDF5 file but no neuralmech record; give a run folder")
    version = file.attrs.get("schema_version")
    if not isinstance(version, (int, np.integer)) or version > SCHEMA_VERSION:
        raise RecordError(
            f"{path} has schema version {version}, this neuralmech reads up to {SCHEMA_VERSION}; upgrade neuralmech"
        )
    try:
        _check_content(file)
    except (KeyError, OSError, ValueError, AttributeError, TypeError, RuntimeError) as error:
        raise RecordError(f"{path} is damaged ({_short(error)}); train again or restore a copy") from None


def _check_content(file: h5py.File) -> None:
    """Everything that is read later is in the file, whole, and no larger than it says."""
    committed, evaluation = _count(file, "committed"), _count(_group(file, "evaluation"), "committed")
    for name in STEP_COLUMNS:
        _check_column(_group(file, "steps"), name, committed)
    for name in EVALUATION_COLUMNS:
        _check_column(file["evaluation"], name, evaluation)
    charges = _group(file, "charges")
    for family in charges:
        check_name(family)
        _check_form(_group(charges, family))
        _check_family(_group(charges, family), committed)
    for name in ("config", "status", "versions"):
        if not isinstance(file.attrs.get(name, ""), str):
            raise ValueError(f"{name} is no text")


def _check_form(group: h5py.Group) -> None:
    if not isinstance(group.attrs.get("form", ""), str):
        raise ValueError(f"{group.name} has a form that is no text")


def _check_family(group: h5py.Group, committed: int) -> None:
    if "index" not in group:
        raise ValueError(f"{group.name} has no index")
    columns = {True: 0, False: 0}
    for name in sorted(group, key=lambda k: not k.endswith("index")):  # the indices first
        check_name(name)
        check_link(group, name)
        if name.endswith("index"):
            check_dataset(group[name])
            columns[name == "index"] = group[name].shape[0]
        else:
            _check_column(group, name, committed, width=columns[name != "frobenius"])
    if group["index"].dtype.names is None or not {"site", "channel"} <= set(group["index"].dtype.names):
        raise ValueError("an index without sites and channels")


def _check_column(group: h5py.Group, name: str, rows: int, width: int | None = None) -> None:
    """A dataset of numbers with at least `rows` rows, and `width` columns if it has columns."""
    check_link(group, name)
    dataset = group[name]
    check_dataset(dataset, rows)
    shape = (dataset.shape[0],) if width is None else (dataset.shape[0], width)
    if dataset.shape != shape or dataset.dtype.kind not in "iuf":
        raise ValueError(f"{dataset.name} is {dataset.dtype} {dataset.shape}")
    if dataset.shape[0] < rows:
        raise ValueError(f"fewer rows than committed in {dataset.name}")


def _count(group: h5py.Group, name: str) -> int:
    check_link(group, name)
    dataset = group[name]
    check_dataset(dataset)
    if dataset.shape != () or dataset.dtype.kind not in "iu" or int(dataset[()]) < 0:
        raise ValueError(f"{dataset.name} is no number of rows")
    return int(dataset[()])


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    check_link(parent, name)
    if not isinstance(parent[name], h5py.Group):
        raise ValueError(f"{name} is no group")
    return parent[name]


def _readable(dataset: h5py.Dataset, rows: int) -> int:
    """Rows before the first chunk that is not there or does not match its checksum."""
    if dataset.chunks is None:
        return rows
    for start in range(0, rows, dataset.chunks[0]):
        try:
            starts = [range(0, n, c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
            places = [dataset.id.get_chunk_info_by_coord((start, *rest)) for rest in product(*starts)]
            if any(place.byte_offset is None for place in places):
                return start
            dataset[start : min(start + dataset.chunks[0], rows)]
        except (OSError, RuntimeError):
            return start
    return rows


def _text(name: bytes | str) -> str:
    return printable(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name))


def _short(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].strip("'\"") if str(error).strip() else type(error).__name__
