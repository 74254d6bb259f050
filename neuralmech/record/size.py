"""How large a record becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py

from neuralmech.record.layout import CHECKSUM_BYTES, blank
from neuralmech.record.rows import FamilyLayout
from neuralmech.record.safety import naming_damage

ATTRIBUTE_BYTES = 1 << 15  # config and provenance, and their headers when a resumed run replaces them
INDEX_BYTES = 16  # for a chunk at most: where it is, how long, and which filters it skipped


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
        for name in ("steps", "charges"):
            file[name].visititems(add)
    return sum(sizes)
