"""Lay out an empty record, its attributes and a dataset that grows for everything that has rows; how large it becomes.

Text has a fixed length: HDF5 keeps text of variable length in a heap without a checksum, where one flipped bit can hang
its reader.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from neuralmech.record.safety import naming_damage
from neuralmech.record.schema import (
    BESIDE_CHARGES,
    EVALUATION_COLUMNS,
    FORMAT,
    SCHEMA_VERSION,
    STEP_COLUMNS,
    FamilyLayout,
)

CHUNK_BYTES = 1 << 20
CHECKSUM_BYTES = 4  # of Fletcher's sum at the end of each chunk
COMPRESSION = {"compression": "lzf", "shuffle": True}  # built into every h5py
FORMATS = ("v110", "v110")  # chunks are indexed by an array that only grows; a B-tree's nodes would be split in place
STATUS_BYTES = 256  # written in place when it changes
ATTRIBUTE_BYTES = 1 << 15  # config and provenance, and their headers when a resumed run replaces them
INDEX_BYTES = 16  # for a chunk at most: where it is, how long, and which filters it skipped


def blank(
    attributes: Mapping[str, object], families: Mapping[str, FamilyLayout], block: int, *, compress: bool = False
) -> bytes:
    """A record without rows, to be filled by a `RecordWriter` in chunks of `block` rows.

    It is made in memory: HDF5 does not survive a disk that is full. The superblock is the oldest that can say that
    freed space stays unused (newer ones refuse to open after a kill), with headers that have checksums.
    """
    content = BytesIO()
    h5py.File(content, "w", libver=("v108", "v110"), fs_strategy="none").close()
    with h5py.File(content, "r+", libver=FORMATS) as file:
        _lay_out(file, attributes, families, block, compress)
    return content.getvalue()


def _lay_out(
    file: h5py.File,
    attributes: Mapping[str, object],
    families: Mapping[str, FamilyLayout],
    block: int,
    compress: bool,
) -> None:
    file.attrs["schema_version"] = SCHEMA_VERSION
    set_text(file, "format", FORMAT)
    set_status(file, "running")
    for key, value in attributes.items():
        set_attribute(file, key, value)
    _columns(file, "steps", STEP_COLUMNS, block)
    _columns(file, "evaluation", EVALUATION_COLUMNS, block)
    file.create_group("charges")
    for name, layout in families.items():
        _family(file.create_group(name if name in BESIDE_CHARGES else f"charges/{name}"), layout, block, compress)
    for group in (file, file["evaluation"]):
        _checked(group, "committed", np.zeros(1, dtype=np.int64))


def set_attribute(file: h5py.File, key: str, value: object) -> None:
    """Text as text of fixed length, tables as JSON, the rest as HDF5 has it."""
    if isinstance(value, (str, dict)):
        set_text(file, key, json.dumps(value) if isinstance(value, dict) else value)
    else:
        file.attrs[key] = value


def set_status(file: h5py.File, status: str) -> None:
    """How the run stands, or how it ended."""
    set_text(file, "status", status, STATUS_BYTES)


def _columns(file: h5py.File, group: str, columns: Mapping[str, type], block: int) -> None:
    target = file.create_group(group)
    for name, dtype in columns.items():
        target.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(block,), fletcher32=True)


def _family(group: h5py.Group, layout: FamilyLayout, block: int, compress: bool) -> None:
    set_text(group, "form", "linear" if layout.translation else "quadratic")
    _checked(group, "index", index(layout.index))
    for signal in layout.signals:
        _signal(group, signal, len(layout.sites), block, compress)
    for name, sites in (("frobenius", layout.norms), ("lean", layout.leans)):
        if sites:
            _checked(group, f"{name}_index", texts(sites))
            _signal(group, name, len(sites), block, compress)
    if layout.parameters:
        names, entries, charges = zip(*layout.parameters, strict=True)
        _checked(group, "parameters_index", index({"name": names, "entry": entries, "charge": charges}))
        _signal(group, "parameters", len(names), block, compress)


def _checked(group: h5py.Group, name: str, values: NDArray) -> None:
    """A table with a checksum, for which HDF5 wants it in chunks."""
    rows = max(1, min(len(values), CHUNK_BYTES // values.dtype.itemsize))
    group.create_dataset(name, data=values, chunks=(rows,), fletcher32=True)


def _signal(group: h5py.Group, name: str, n: int, block: int, compress: bool) -> None:
    most = max(1, CHUNK_BYTES // (8 * block))
    parts = -(-n // most)
    chunks = (block, max(1, -(-n // max(1, parts))))  # of one size, so that the last is not mostly empty
    options = COMPRESSION if compress else {}
    group.create_dataset(name, (0, n), np.float64, maxshape=(None, n), chunks=chunks, fletcher32=True, **options)


def set_text(target: h5py.Group, name: str, value: str, size: int | None = None) -> None:
    """Set an attribute to text, of `size` bytes if given, in place if it has this length already."""
    encoded = value.encode()[:size].decode("utf-8", "ignore").encode() if size else value.encode()  # whole characters
    data = np.array(encoded, dtype=h5py.string_dtype("utf-8", size or max(1, len(encoded))))
    if name in target.attrs and target.attrs.get_id(name).dtype == data.dtype:
        target.attrs.modify(name, data)
    else:  # modify would cut text that is longer than what was there
        target.attrs.create(name, data, dtype=data.dtype)


def texts(values: Sequence[str]) -> Shaped[NDArray, " texts"]:
    """Text of fixed length, as long as the longest."""
    encoded = [value.encode() for value in values]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, *map(len, encoded))))


def index(columns: Mapping[str, Any]) -> Shaped[NDArray, " entries"]:
    """A table out of columns of names and of numbers."""
    arrays = {name: texts(v) if isinstance(v[0], str) else _numbers(v) for name, v in columns.items()}
    table = np.empty(len(next(iter(arrays.values()))), dtype=[(name, a.dtype) for name, a in arrays.items()])
    for name, values in arrays.items():
        table[name] = values
    return table


def _numbers(values: Any) -> NDArray:
    found = np.asarray(values)
    return found if found.dtype.kind == "f" else found.astype(np.int64)


def largest_record(families: Mapping[str, FamilyLayout], rows: int, evaluations: int, block: int) -> tuple[int, int]:
    """Bytes that a record takes at most: in its chunks, and in all that holds them together.

    Chunks are counted as if full and not compressed: HDF5 stores one that lzf does not shorten as it is. A compressed
    chunk that is written again as it fills is of another size and leaves its old place behind; so does what a resumed
    run cuts off. Neither is counted.
    """
    content = blank({}, families, block)
    chunks, rest = 0, len(content) + ATTRIBUTE_BYTES

    def add(name: str, dataset: Any) -> None:
        nonlocal chunks, rest
        if not isinstance(dataset, h5py.Dataset) or dataset.maxshape[:1] != (None,):
            return
        shape = (evaluations if name.startswith("evaluation") else rows, *dataset.shape[1:])
        count = math.prod(-(-n // c) for n, c in zip(shape, dataset.chunks, strict=True))
        chunks += count * (math.prod(dataset.chunks) * dataset.dtype.itemsize + CHECKSUM_BYTES)
        rest += count * INDEX_BYTES + 128 * math.isqrt(count) + 1024  # blocks of the index double

    with h5py.File(BytesIO(content), "r") as file:
        file.visititems(add)
    return chunks, rest


def whole_chunks(path: Path, rows: int) -> int:
    """Bytes that the whole chunks of a record's first rows take in its file, of which no checkpoint has a copy.

    Raises
    ------
    RecordError
        If the file is damaged.
    """
    sizes: list[int] = []

    def add(_: str, dataset: Any) -> None:
        if not isinstance(dataset, h5py.Dataset) or dataset.maxshape[:1] != (None,):
            return
        end = rows // dataset.chunks[0] * dataset.chunks[0]
        dataset.id.chunk_iter(lambda chunk: sizes.append(chunk.size) if chunk.chunk_offset[0] < end else None)

    with naming_damage(path), h5py.File(path, "r", locking=False) as file:
        for name in ("steps", "charges", *(name for name in BESIDE_CHARGES if name in file)):
            file[name].visititems(add)
    return sum(sizes)
