"""Lay out an empty record: its attributes, and a dataset that grows for everything that has rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO

import h5py
import numpy as np
from numpy.typing import NDArray

from neuralmech.record.rows import FamilyLayout
from neuralmech.record.schema import EVALUATION_COLUMNS, FORMAT, SCHEMA_VERSION, STEP_COLUMNS
from neuralmech.record.text import index, set_text, texts

CHUNK_BYTES = 1 << 20
CHECKSUM_BYTES = 4  # of Fletcher's sum at the end of each chunk
COMPRESSION = {"compression": "lzf", "shuffle": True}  # built into every h5py
FORMATS = ("v110", "v110")  # chunks are indexed by an array that only grows; a B-tree's nodes would be split in place
STATUS_BYTES = 256  # written in place when it changes


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
        _family(file.create_group(f"charges/{name}"), layout, block, compress)
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
    partners = {} if layout.partners is None else {"partner": layout.partners}
    _checked(group, "index", index({"site": layout.sites, "channel": layout.channels, **partners}))
    for signal in layout.signals:
        _signal(group, signal, len(layout.sites), block, compress)
    if layout.norms:
        _checked(group, "frobenius_index", texts(layout.norms))
        _signal(group, "frobenius", len(layout.norms), block, compress)
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
