"""Sparse matrices of whole numbers, with 64-bit integers, and Python's where these would not hold them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64, Shaped
from numpy.typing import NDArray

Array = Int64[NDArray, " entries"]
LIMIT = float(2**62)


@dataclass(frozen=True)
class Entries:
    """Sparse integer matrix: sorted by row and column, without zeros and repeats; `values` may hold Python integers."""

    rows: Array
    columns: Array
    values: NDArray

    @staticmethod
    def of(rows: Array, columns: Array, values: Shaped[NDArray, " entries"]) -> Entries:
        """Sort triples and sum what stands at the same place."""
        if not rows.size:
            return Entries(rows, columns, values)
        width = int(columns.max()) + 1
        at = rows * width + columns if (float(rows.max()) + 1) * width < LIMIT else None
        order = np.lexsort((columns, rows)) if at is None else np.argsort(at, kind="stable")
        rows, columns = rows[order], columns[order]
        starts = np.flatnonzero((np.diff(rows, prepend=-1) != 0) | (np.diff(columns, prepend=-1) != 0))
        most = int(np.diff(starts, append=rows.size).max())
        values = np.add.reduceat(_holding(values[order], most), starts)
        kept = values != 0
        return Entries(rows[starts][kept], columns[starts][kept], values[kept])

    def starts(self) -> Array:
        """Where each row that is not empty begins."""
        return np.flatnonzero(np.diff(self.rows, prepend=-1))

    def only(self, kept: Bool[NDArray, " entries"]) -> Entries:
        """Keep the entries of a mask."""
        return Entries(self.rows[kept], self.columns[kept], self.values[kept])

    def simplified(self) -> Entries:
        """Divide each row by its common factor, drop rows that repeat another up to the sign, and number the rest."""
        if not self.rows.size:
            return self
        starts = self.starts()
        lengths = np.diff(starts, append=self.rows.size)
        factor = np.gcd.reduceat(self.values, starts) * np.where(self.values[starts] < 0, -1, 1)
        values = self.values // np.repeat(factor, lengths)
        new = np.ones(starts.size, dtype=bool)
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)
            at = starts[alike][:, None] + np.arange(length)
            frame = pd.concat([pd.DataFrame(self.columns[at]), pd.DataFrame(values[at])], axis=1, ignore_index=True)
            new[alike] = ~frame.duplicated().to_numpy()
        kept = np.repeat(new, lengths)
        return Entries(np.repeat(np.cumsum(new) - 1, lengths)[kept], self.columns[kept], values[kept])


class Growing:
    """An array that grows at its end."""

    def __init__(self, values: Shaped[NDArray, " entries"]) -> None:
        self._store, self.size = values.copy(), values.size

    @property
    def array(self) -> Shaped[NDArray, " entries"]:
        """What is there so far."""
        return self._store[: self.size]

    def append(self, values: Shaped[NDArray, " more"]) -> None:
        """Put values at the end."""
        if values.dtype != self._store.dtype:
            self._store = self._store.astype(object)
        if self.size + values.size > self._store.size:
            spare = np.zeros(self.size + 2 * values.size, dtype=self._store.dtype)
            self._store = np.concatenate([self.array, spare])
        self._store[self.size : self.size + values.size] = values
        self.size += values.size


def ranges(starts: Array, lengths: Array) -> Array:
    """Concatenate the ranges start, …, start + length − 1."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if ends.size else 0) + np.repeat(starts - (ends - lengths), lengths)


def _holding(values: NDArray, factor: float) -> NDArray:
    """`values` in a type that holds them `factor` times."""
    if values.dtype == object or not values.size or float(abs(values).max()) * factor < LIMIT:
        return values
    return values.astype(object)


def product(a: Shaped[NDArray, "*shape"], b: Shaped[NDArray, "*shape"]) -> Shaped[NDArray, "*shape"]:
    """Elementwise product, exact."""
    if a.dtype == object or b.dtype == object or not a.size:
        return a * b
    return _holding(a, float(abs(b).max())) * b
