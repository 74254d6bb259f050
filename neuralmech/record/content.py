"""Check, before anything is read, that a file is a record, whole, and no larger than it says."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from neuralmech.record.safety import check_dataset, check_link, check_name
from neuralmech.record.schema import (
    EVALUATION_COLUMNS,
    FORMAT,
    LATER_COLUMNS,
    SCHEMA_VERSION,
    STEP_COLUMNS,
    RecordError,
)
from neuralmech.record.text import attribute

INDICES = {"index": {"site", "channel"}, "parameters_index": {"name", "entry", "charge"}}


def check_file(file: h5py.File, path: Path) -> None:
    """Raise a `RecordError` unless the file holds a record of a known version; see `naming_damage` for the rest."""
    if attribute(file, "format") != FORMAT:
        raise RecordError(f"{path} is an HDF5 file but no neuralmech record; give a run folder")
    version = file.attrs.get("schema_version")
    if not isinstance(version, (int, np.integer)) or version > SCHEMA_VERSION:
        raise RecordError(
            f"{path} has schema version {version}, this neuralmech reads up to {SCHEMA_VERSION}; upgrade neuralmech"
        )
    _check_content(file)


def _check_content(file: h5py.File) -> None:
    """Everything that is read later is in the file, whole, and all of it together no larger than the file says."""
    committed, evaluation = _count(file, "committed"), _count(_group(file, "evaluation"), "committed")
    least = 0.0
    for name in STEP_COLUMNS:
        if name not in LATER_COLUMNS or name in _group(file, "steps"):
            least += _check_column(_group(file, "steps"), name, committed)
    for name in EVALUATION_COLUMNS:
        least += _check_column(file["evaluation"], name, evaluation)
    charges = _group(file, "charges")
    for family in charges:
        check_name(family)
        attribute(_group(charges, family), "form")
        least += _check_family(_group(charges, family), committed)
    if least > file.id.get_filesize():  # datasets may say that the same bytes are theirs
        raise ValueError("its datasets claim more than the file holds")
    for name in ("config", "status", "versions"):
        attribute(file, name)


def _check_family(group: h5py.Group, committed: int) -> float:
    if "index" not in group:
        raise ValueError(f"{group.name} has no index")
    least = 0.0
    for name in sorted(group, key=lambda k: not k.endswith("index")):  # the indices first
        check_name(name)
        check_link(group, name)
        if name.endswith("index"):
            least += check_dataset(group[name])
        else:
            own = f"{name}_index"
            width = group[own if own in group else "index"].shape[0]
            least += _check_column(group, name, committed, width=width)
    for name, columns in INDICES.items():
        if name in group and not columns <= set(group[name].dtype.names or ()):
            raise ValueError(f"{name} lacks {' or '.join(sorted(columns))}")
    return least


def _check_column(group: h5py.Group, name: str, rows: int, width: int | None = None) -> float:
    """A dataset of numbers with at least `rows` rows, and `width` columns if it has columns."""
    check_link(group, name)
    dataset = group[name]
    least = check_dataset(dataset, rows)
    shape = (dataset.shape[0],) if width is None else (dataset.shape[0], width)
    if dataset.shape != shape or dataset.dtype.kind not in "iuf":
        raise ValueError(f"{dataset.name} is {dataset.dtype} {dataset.shape}")
    if dataset.shape[0] < rows:
        raise ValueError(f"fewer rows than committed in {dataset.name}")
    return least


def _count(group: h5py.Group, name: str) -> int:
    check_link(group, name)
    dataset = group[name]
    check_dataset(dataset)
    if dataset.shape not in ((), (1,)) or dataset.dtype.kind not in "iu" or dataset[()].item() < 0:
        raise ValueError(f"{dataset.name} is no number of rows")
    return dataset[()].item()


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    check_link(parent, name)
    if not isinstance(parent[name], h5py.Group):
        raise ValueError(f"{name} is no group")
    return parent[name]
