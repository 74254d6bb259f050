"""Distinct rows of large integer matrices: by hashing and packing, where sorting whole rows takes ten times as long."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int, Int64, UInt64
from numpy.typing import NDArray

Ids = Int64[NDArray, "*shape"]  # numbers of unknowns
LARGEST = np.iinfo(np.int64).max
MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93], dtype=np.uint64)  # odd, half ones


def distinct(rows: Ids) -> Ids:
    """Distinct rows of a matrix, in order of first appearance."""
    if len(rows) < 2:
        return rows
    return rows[~pd.DataFrame(rows).duplicated().to_numpy()]


def distinct_pairs(a: Ids, b: Ids) -> Ids:
    """Distinct pairs (a_i, b_i) of non-negative numbers, sorted; shape (2, pairs).

    As ``np.unique`` along an axis, of which 10⁷ pairs take ten seconds: here a pair is one integer.
    """
    width = int(b.max(initial=0)) + 1
    if (int(a.max(initial=0)) + 1) * width > LARGEST:
        return np.unique(np.stack([a, b]), axis=1)
    packed = np.sort(a * width + b)
    packed = packed[np.diff(packed, prepend=-1) > 0]
    return np.stack(np.divmod(packed, width))


def distinct_rows(rows: Ids) -> tuple[Ids, Ids]:
    """Distinct rows of a matrix, sorted, and which of them each row is: ``np.unique`` along axis 0.

    Examples
    --------
    >>> found, which = distinct_rows(np.array([[2, 1, 5], [1, 7, 0], [2, 1, 5]]))
    >>> found.tolist(), which.tolist()
    ([[1, 7, 0], [2, 1, 5]], [1, 0, 1])
    """
    if not rows.size:
        found, which = np.unique(rows, axis=0, return_inverse=True)
        return found, which.ravel()
    which, first = _alike(rows)
    order = _sorted(rows[first])
    return rows[first[order]], _inverse(order)[which]


def numbered_pairs(a: Ids, b: Ids) -> Ids:
    """A number for each pair (a_i, b_i), from 0 on: the same for equal ones, smaller for lesser ones."""
    packed = _packed([a, b])
    if packed is None:
        return distinct_rows(np.stack([a, b], axis=1))[1]
    which, numbers = pd.factorize(packed)
    return _inverse(np.argsort(numbers, kind="stable"))[which]


def _packed(columns: Sequence[Ids] | Ids) -> Ids | None:
    """Rows, given by their columns, as one integer each, in the same order; None if that has no room."""
    if not columns[0].size:
        return np.zeros(0, dtype=np.int64)
    least = [int(c.min()) for c in columns]
    sizes = [int(c.max()) - low + 1 for c, low in zip(columns, least, strict=True)]
    if math.prod(sizes) > LARGEST:
        return None
    out = np.zeros(columns[0].size, dtype=np.int64)
    for column, low, size in zip(columns, least, sizes, strict=True):
        if size > 1:
            out = out * size + (column - low)
    return out


def _inverse(order: Ids) -> Ids:
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    return place


def mixed(numbers: Int[NDArray, "*shape"], places: Int[NDArray, "*shape"]) -> UInt64[NDArray, "*shape"]:
    """Numbers that look like random ones, the same for the same (number, place); their sums are hashes."""
    out = numbers.astype(np.uint64) * MIXERS[0] + places.astype(np.uint64) * MIXERS[1]
    out ^= out >> np.uint64(29)
    out *= MIXERS[2]
    out ^= out >> np.uint64(32)
    return out


def _alike(rows: Ids) -> tuple[Ids, Ids]:
    """A number for each row, the same for equal ones, and where each number comes first."""
    packed = _packed([*rows.T])
    keys = mixed(rows, np.arange(rows.shape[1])).sum(axis=1) if packed is None else packed
    which, numbers = pd.factorize(keys)
    first = np.empty(numbers.size, dtype=np.int64)
    first[which[::-1]] = np.arange(which.size)[::-1]
    if packed is None and not np.array_equal(rows, rows[first][which]):  # two rows have one hash
        _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return which.ravel(), first


def _sorted(rows: Ids) -> Ids:
    """Order of rows that differ, by column after column as long as some are the same so far."""
    keys = _packed([*rows.T])
    if keys is not None:
        return np.argsort(keys, kind="stable")
    keys = rows[:, 0]
    for column in rows.T[1:]:
        values, ranks = np.unique(keys, return_inverse=True)
        if values.size == len(rows):
            break
        more, among = np.unique(column, return_inverse=True)
        keys = ranks * more.size + among
    return np.argsort(keys, kind="stable")
