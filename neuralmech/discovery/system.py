"""Integer-linear constraints on many unknowns, and the sparse, local basis of their null space.

Almost all constraints that a network gives say "these two are equal" or "this one is zero"; a disjoint-set
forest takes those at once. What is left (sums and multiples of a few unknowns) is eliminated exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from neuralmech.discovery.distinct import Ids, distinct, distinct_pairs
from neuralmech.discovery.elimination import Stage, back_substitute, eliminate
from neuralmech.discovery.entries import Entries

ZERO = 0


class System:
    """Unknowns named by integers; unknown 0 is the number zero.

    Examples
    --------
    >>> s = System()
    >>> a, b, c = s.new(3)
    >>> s.equate(a, b)
    >>> s.add_rows(np.array([[a, c]]), [2, -1])     # 2a = c
    >>> s.solve().values(np.array([a, b, c])).toarray()
    array([[1.],
           [1.],
           [2.]])
    """

    def __init__(self) -> None:
        self._parent = np.zeros(1024, dtype=np.int64)
        self._why = np.full(1024, -1, dtype=np.int64)
        self._size = 1
        self._reasons: list[str] = []
        # Blocks of rows: unknowns (rows, terms) and a number for each term, or one after the other and their lengths.
        self._rows: list[tuple[Ids, NDArray, Ids | None]] = []

    def new(self, count: int) -> Ids:
        """Return `count` fresh unknowns."""
        first, self._size = self._size, self._size + count
        while self._size > len(self._parent):
            self._parent = np.concatenate([self._parent, np.zeros_like(self._parent)])
            self._why = np.concatenate([self._why, np.full_like(self._why, -1)])
        ids = np.arange(first, self._size, dtype=np.int64)
        self._parent[ids] = ids
        return ids

    def find(self, ids: Ids) -> Ids:
        """Representative of each unknown's class of equals; the representative of zero is 0."""
        roots = self._parent[ids]
        while True:
            higher = self._parent[roots]
            if np.array_equal(higher, roots):
                return roots
            roots = higher

    def equate(self, a: Ids | int, b: Ids | int, why: str = "") -> None:
        """Demand a = b, elementwise with broadcasting."""
        left, right = np.broadcast_arrays(self.find(np.asarray(a)), self.find(np.asarray(b)))
        differ = left != right
        if not differ.any():
            return
        pairs = distinct_pairs(left[differ], right[differ])
        labels, inverse = np.unique(pairs, return_inverse=True)
        ends = inverse.reshape(pairs.shape)
        edges = sparse.coo_array((np.ones(ends[0].size), (ends[0], ends[1])), shape=(labels.size, labels.size))
        count, component = connected_components(edges, directed=False)
        roots = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(roots, component, labels)
        self._parent[labels] = roots[component]
        zeroed = labels[(roots[component] == ZERO) & (labels != ZERO)]
        if zeroed.size:
            self._why[zeroed] = len(self._reasons)
            self._reasons.append(why)

    def zero(self, ids: Ids, why: str = "") -> None:
        """Demand that each of `ids` is zero; `why` is kept for reports."""
        self.equate(ids, ZERO, why)

    def add_rows(self, ids: Ids, coefficients: Sequence[int | Fraction]) -> None:
        """Demand Σ_j coefficients[j]·ids[i, j] = 0 for every row i of `ids` (shape (rows, terms))."""
        if len(ids):
            common = math.lcm(*(c.denominator for c in coefficients))
            whole = [int(c * common) for c in coefficients]
            values = np.array(whole, dtype=np.int64 if max(map(abs, whole)) < 2**31 else object)
            self._rows.append((distinct(self.find(ids)), values, None))

    def add_sums(self, ids: Ids, coefficients: Shaped[NDArray, " terms"], lengths: Ids) -> None:
        """Demand Σ coefficients·ids = 0 over every stretch of the given lengths."""
        length = int(lengths[0])
        if (lengths == length).all():
            table = coefficients.reshape(-1, length)
            if (table == table[0]).all():
                self._rows.append((ids.reshape(-1, length), table[0], None))
                return
        self._rows.append((ids, coefficients, lengths))

    def why_zero(self, ids: Ids) -> list[str]:
        """Distinct reasons, in order of appearance, why those of `ids` that are zero became so."""
        current = np.unique(ids)
        while True:
            above = self._parent[current]
            step = (above != ZERO) & (above != current)
            if not step.any():
                break
            current = np.where(step, above, current)
        causes = self._why[current[(current != ZERO) & (self._parent[current] == ZERO)]]
        return list(dict.fromkeys(self._reasons[c] for c in np.unique(causes) if c >= 0))

    def solve(self) -> Solution:
        """Eliminate the rows exactly and return the null space."""
        labels, rows = self._reduced_rows()
        return Solution(self, labels, eliminate(rows, labels.size), self._size)

    def _reduced_rows(self) -> tuple[Ids, Entries]:
        """Unknowns that occur in rows, in order, and the rows over them."""
        parts, first = [], 0
        for ids, values, lengths in self._rows:
            roots = self.find(ids)
            if lengths is None:  # much became equal since: to drop it first is cheaper than to sort it
                roots = distinct(_cancelled(roots, values))
                lengths = np.full(len(roots), roots.shape[1])
                roots, values = roots.ravel(), np.tile(values, len(roots))
            kept = roots != ZERO
            numbers = first + np.repeat(np.arange(len(lengths)), lengths)
            parts.append((numbers[kept], roots[kept], values[kept]))
            first += len(lengths)
        none = np.zeros(0, dtype=np.int64)
        numbers, roots, values = (np.concatenate([none, *(p[k] for p in parts)]) for k in range(3))
        there = np.zeros(self._size, dtype=bool)
        there[roots] = True
        labels, columns = np.flatnonzero(there), (np.cumsum(there) - 1)[roots]
        return labels, Entries.of(numbers, columns, values)


def _cancelled(rows: Ids, coefficients: NDArray) -> Ids:
    """Rows of unknowns with those set to zero that are added and taken away again."""
    for i, j in combinations(range(rows.shape[1]), 2):
        if coefficients[i] + coefficients[j] == 0:
            gone = rows[:, i] == rows[:, j]
            rows[gone, i] = rows[gone, j] = ZERO
    return rows


class Solution:
    """The null space: every unknown as a combination of free ones."""

    def __init__(self, system: System, labels: Ids, stages: list[Stage], size: int) -> None:
        self._system = system
        pivots = np.concatenate([np.zeros(0, dtype=np.int64), *(stage.pivots for stage in stages)])
        is_free = np.zeros(size, dtype=bool)
        is_free[system.find(np.arange(size))] = True
        is_free[labels[pivots]] = is_free[ZERO] = False
        free = np.flatnonzero(is_free)
        self.dimension = int(free.size)
        among = np.flatnonzero(is_free[labels])
        found = back_substitute(stages, among, labels.size)
        is_free[labels] = False  # what stands in no row is left
        alone = np.flatnonzero(is_free[free])
        rows = np.concatenate([free[alone], labels[found.unknowns]])
        columns = np.concatenate([alone, np.searchsorted(free, labels[found.free])])
        data = np.concatenate([np.ones(alone.size), (found.numerators / found.denominators).astype(np.float64)])
        self._matrix = sparse.csr_array((data, (rows, columns)), shape=(size, free.size), dtype=np.float64)

    def values(self, ids: Ids) -> sparse.csr_array:
        """Values of `ids` in each basis vector: sparse, shape (len(ids), dimension)."""
        return self._matrix[self._system.find(np.ravel(ids))]
