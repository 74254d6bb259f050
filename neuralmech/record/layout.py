"""Lay out an empty record: its attributes, and a dataset that grows for everything that has rows."""

from __future__ import annotations

import json
from collections.abc import Mapping

import h5py
import numpy as np

from neuralmech.record.rows import FamilyLayout
from neuralmech.record.schema import EVALUATION_COLUMNS, FORMAT, SCHEMA_VERSION, STEP_COLUMNS
from neuralmech.record.text import index, set_text, texts

CHUNK_BYTES = 1 << 20
COMPRESSION = {"compression": "lzf", "shuffle": True}  # built into every h5py
STATUS_BYTES = 256  # written in place when it changes


def lay_out(
    file: h5py.File,
    attributes: Mapping[str, object],
    families: Mapping[str, FamilyLayout],
    block: int,
    *,
    compress: bool,
) -> None:
    """Fill an empty file with what `RecordWriter` writes rows into, in chunks of `block` rows."""
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
    file.create_dataset("committed", data=np.int64(0))
    file["evaluation"].create_dataset("committed", data=np.int64(0))


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
    set_text(group, "form", "linear" if layout.linear else "quadratic")
    partners = {} if layout.partners is None else {"partner": layout.partners}
    group.create_dataset("index", data=index({"site": layout.sites, "channel": layout.channels, **partners}))
    for signal in layout.signals:
        _signal(group, signal, len(layout.sites), block, compress)
    if layout.norms:
        group.create_dataset("frobenius_index", data=texts(layout.norms))
        _signal(group, "frobenius", len(layout.norms), block, compress)
    if layout.parameters:
        names, entries, charges = zip(*layout.parameters, strict=True)
        group.create_dataset("parameters_index", data=index({"name": names, "entry": entries, "charge": charges}))
        _signal(group, "parameters", len(names), block, compress)


def _signal(group: h5py.Group, name: str, n: int, block: int, compress: bool) -> None:
    most = max(1, CHUNK_BYTES // (8 * block))
    parts = -(-n // most)
    chunks = (block, max(1, -(-n // max(1, parts))))  # of one size, so that the last is not mostly empty
    options = COMPRESSION if compress else {}
    group.create_dataset(name, (0, n), np.float64, maxshape=(None, n), chunks=chunks, fletcher32=True, **options)
