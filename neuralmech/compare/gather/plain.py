"""Tables, curves and what holds them as one file of numbers and text, and back, to the bit; reading it runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd

from neuralmech.compare.gather.job import Compared
from neuralmech.compare.gather.runs import Job
from neuralmech.compare.measure.batches import BatchPredictions

OF = "@"  # the key that says what a table in the text stands for
TEXT, KEY = "text", "key"  # members of the archive besides arrays
MAX_KEY = 1 << 16


def _held_by(kind: Any) -> set[type]:
    """A class of this program's that holds data, and all that its fields may hold."""
    found: set[type] = set()
    held = get_args(kind)
    if isinstance(kind, type) and (is_dataclass(kind) or hasattr(kind, "_fields")):
        found.add(kind)
        held = tuple(get_type_hints(kind).values())
    return found.union(*map(_held_by, held))


CLASSES = {kind.__name__: kind for of in (Compared, Job, BatchPredictions) for kind in _held_by(of)}


def packed(value: Any, key: str) -> bytes:
    """A value as the bytes of a NumPy archive, under a key.

    Raises
    ------
    TypeError
        If something in it is none of what an analysis is made of.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_told(value, arrays))
    members = {name: np.frombuffer(of.encode(), dtype=np.uint8) for name, of in ((KEY, key), (TEXT, text))}
    file = BytesIO()
    np.savez_compressed(file, **members, **arrays)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def unpacked(content: bytes, key: str) -> Any:
    """What was packed under a key; None if it was under another one, and then no more is unpacked.

    Raises
    ------
    Exception
        Of whatever kind, if the bytes are not what `packed` gave: a member that was changed does not match its
        checksum.
    """
    with np.load(BytesIO(content), allow_pickle=False) as archive:
        if archive.zip.getinfo(f"{KEY}.npy").file_size > MAX_KEY or archive[KEY].tobytes() != key.encode():
            return None
        return _read(json.loads(archive[TEXT].tobytes()), archive)


def _told(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Numbers, text and lists as they are; a table that says what it is of all else."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_told(one, arrays) for one in value]
    if isinstance(value, Path):
        return {OF: "path", "path": str(value)}
    if type(value).__name__ in CLASSES:
        names = [f.name for f in fields(value)] if is_dataclass(value) else list(value._fields)
        return {OF: type(value).__name__, **{name: _told(getattr(value, name), arrays) for name in names}}
    if isinstance(value, tuple):
        return {OF: "tuple", "of": [_told(one, arrays) for one in value]}
    if isinstance(value, Mapping):
        return {OF: "map", "of": [[_told(k, arrays), _told(v, arrays)] for k, v in value.items()]}
    if isinstance(value, pd.DataFrame):
        columns = [[name, str(value[name].dtype), _told(value[name].tolist(), arrays)] for name in value.columns]
        return {OF: "frame", "columns": columns, "index": value.index.tolist()}
    if isinstance(value, np.generic):
        return {OF: "number", "kind": value.dtype.str, "value": value.item()}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        arrays[name := f"array{len(arrays)}"] = value
        return {OF: "array", "name": name}
    raise TypeError(f"{type(value).__name__} is nothing that an analysis is made of")


def _read(value: Any, archive: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_read(one, archive) for one in value]
    if not isinstance(value, dict):
        return value
    match value[OF]:
        case "path":
            return Path(value["path"])
        case "tuple":
            return tuple(_read(one, archive) for one in value["of"])
        case "map":
            return {_read(k, archive): _read(v, archive) for k, v in value["of"]}
        case "frame":
            return _frame(value, archive)
        case "number":
            return np.dtype(value["kind"]).type(value["value"])
        case "array":
            return archive[value["name"]]
        case name:
            return CLASSES[name](**{key: _read(one, archive) for key, one in value.items() if key != OF})


def _frame(value: dict[str, Any], archive: Mapping[str, np.ndarray]) -> pd.DataFrame:
    index = value["index"]
    at = range(len(index)) if index == list(range(len(index))) else index
    columns = {name: _column(kind, of, archive) for name, kind, of in value["columns"]}
    return pd.DataFrame(columns, index=at)


def _column(kind: str, values: list[Any], archive: Mapping[str, np.ndarray]) -> Any:
    """Numbers as an array; a series of text or of all kinds of things takes ten times as long to make."""
    if kind.startswith(("float", "int", "uint", "bool")):
        return np.array(values, dtype=kind)
    return pd.array(_read(values, archive), dtype=kind)
