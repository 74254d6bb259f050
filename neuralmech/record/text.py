"""Text in a record has a fixed length.

HDF5 keeps text of variable length in a heap without a checksum, where one flipped bit can hang its reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray


def set_text(target: h5py.Group, name: str, value: str, size: int | None = None) -> None:
    """Set an attribute to text, of `size` bytes if given, in place if it has this length already."""
    encoded = value.encode()[:size] if size else value.encode()
    data = np.array(encoded, dtype=h5py.string_dtype("utf-8", size or max(1, len(encoded))))
    if name in target.attrs and target.attrs.get_id(name).dtype == data.dtype:
        target.attrs.modify(name, data)
    else:  # modify would cut text that is longer than what was there
        target.attrs.create(name, data, dtype=data.dtype)


def texts(values: Sequence[str]) -> NDArray:
    """Text of fixed length, as long as the longest."""
    encoded = [value.encode() for value in values]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, *map(len, encoded))))


def index(columns: Mapping[str, Any]) -> NDArray:
    """A table out of columns of names and of whole numbers."""
    arrays = {name: texts(v) if isinstance(v[0], str) else np.asarray(v, dtype=np.int64) for name, v in columns.items()}
    table = np.empty(len(next(iter(arrays.values()))), dtype=[(name, a.dtype) for name, a in arrays.items()])
    for name, values in arrays.items():
        table[name] = values
    return table


def attribute(target: h5py.Group, name: str, default: str = "") -> str:
    """Text of an attribute.

    Raises
    ------
    ValueError
        If it is no text.
    """
    value = target.attrs[name] if name in target.attrs else default  # noqa: SIM401  (get takes a damaged one for none)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise ValueError(f"{target.name} has a {name} that is no text")
    return value
