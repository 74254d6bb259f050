"""Integer-linear constraints on many unknowns, and the sparse, local basis of their null space.

Almost all constraints that a network gives say "these two are equal" or "this one is zero"; a disjoint-set
forest takes those at once. What is left (sums and multiples of a few unknowns) is eliminated exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

Ids = NDArray[np.int64]
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
        self._rows: list[tuple[Ids, tuple[Fraction, ...]]] = []  # blocks of rows with the same coefficients

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
            self._rows.append((distinct(self.find(ids)), tuple(Fraction(c) for c in coefficients)))

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
        return Solution(self, _eliminate(self._reduced_rows()), self._size)

    def _reduced_rows(self) -> list[dict[int, Fraction]]:
        """Rows over representatives, without zeros and repeats."""
        rows: dict[tuple, dict[int, Fraction]] = {}
        for ids, weights in self._rows:
            for roots in distinct(self.find(ids)).tolist():
                row: dict[int, Fraction] = {}
                for root, weight in zip(roots, weights, strict=True):
                    row[root] = row[root] + weight if root in row else weight
                row = {v: c for v, c in row.items() if c and v != ZERO}
                if row:
                    rows.setdefault(tuple(sorted(row.items())), row)
        return list(rows.values())


def distinct(rows: Ids) -> Ids:
    """Distinct rows of a matrix, in order of first appearance; by hashing, where sorting would be slow."""
    if len(rows) < 2:
        return rows
    frame = pd.DataFrame(rows)
    return rows[~frame.duplicated().to_numpy()]


def distinct_pairs(a: Ids, b: Ids) -> Ids:
    """Distinct pairs (a_i, b_i) of non-negative numbers, sorted; shape (2, pairs).

    As ``np.unique`` along an axis, of which 10⁷ pairs take ten seconds: here a pair is one integer.
    """
    width = int(b.max(initial=0)) + 1
    if (int(a.max(initial=0)) + 1) * width > np.iinfo(np.int64).max:
        return np.unique(np.stack([a, b]), axis=1)
    packed = np.sort(a * width + b)
    packed = packed[np.diff(packed, prepend=-1) > 0]
    return np.stack(np.divmod(packed, width))


class Solution:
    """The null space: every unknown as a combination of free ones."""

    def __init__(self, system: System, pivots: dict[int, dict[int, Fraction]], size: int) -> None:
        self._system = system
        roots = system.find(np.arange(size))
        free = np.setdiff1d(np.unique(roots), [ZERO, *pivots])
        column = {int(v): j for j, v in enumerate(free)}
        entries = [(v, j, 1.0) for v, j in column.items()]
        entries += [(v, column[f], float(c)) for v, row in pivots.items() for f, c in row.items()]
        rows, columns, data = zip(*entries, strict=True) if entries else ((), (), ())
        self._matrix = sparse.csr_array((data, (rows, columns)), shape=(size, free.size), dtype=np.float64)
        self.dimension = int(free.size)

    def values(self, ids: Ids) -> sparse.csr_array:
        """Values of `ids` in each basis vector: sparse, shape (len(ids), dimension)."""
        return self._matrix[self._system.find(np.ravel(ids))]


def _eliminate(rows: list[dict[int, Fraction]]) -> dict[int, dict[int, Fraction]]:
    """Solve each row for one unknown; returns unknown → combination of free unknowns.

    An unknown that occurs in a single row is solved for at no cost ("peeling"); only a core in which every
    unknown occurs twice or more needs substitution. The newest candidate is solved for: it is the derived
    one (a product's output), so the basis stays with the parameters.
    """
    uses: dict[int, set[int]] = defaultdict(set)
    for i, row in enumerate(rows):
        for v in row:
            uses[v].add(i)
    order: list[tuple[int, dict[int, Fraction]]] = []
    remaining = {i for i, row in enumerate(rows) if row}
    singles = [v for v, where in uses.items() if len(where) == 1]

    def retire(i: int, pivot: int) -> None:
        order.append((pivot, rows[i]))
        remaining.discard(i)
        for v in rows[i]:
            uses[v].discard(i)
            if len(uses[v]) == 1:
                singles.append(v)

    while remaining:
        while singles:
            v = singles.pop()
            if len(uses[v]) == 1:
                i = next(iter(uses[v]))
                retire(i, max(w for w in rows[i] if len(uses[w]) == 1))
        if remaining:
            i = min(remaining, key=lambda k: (len(rows[k]), k))
            pivot = min(rows[i], key=lambda w: (len(uses[w]), -w))
            for other in list(uses[pivot] - {i}):
                _substitute(rows, uses, other, i, pivot)
                if not rows[other]:
                    remaining.discard(other)
            singles.extend(v for v in rows[i] if len(uses[v]) == 1)
            retire(i, pivot)
    return _back_substitute(order)


def _substitute(rows: list[dict[int, Fraction]], uses: dict[int, set[int]], target: int, source: int, pivot: int):
    """Remove `pivot` from row `target` by adding a multiple of row `source`."""
    factor = rows[target][pivot] / rows[source][pivot]
    for v, c in rows[source].items():
        value = rows[target].get(v, Fraction(0)) - factor * c
        if value:
            rows[target][v] = value
            uses[v].add(target)
        else:
            rows[target].pop(v, None)
            uses[v].discard(target)


def _back_substitute(order: list[tuple[int, dict[int, Fraction]]]) -> dict[int, dict[int, Fraction]]:
    solved: dict[int, dict[int, Fraction]] = {}
    for pivot, row in reversed(order):
        combination: dict[int, Fraction] = defaultdict(Fraction)
        for v, c in row.items():
            if v != pivot:
                for free, share in solved.get(v, {v: Fraction(1)}).items():
                    combination[free] -= c / row[pivot] * share
        solved[pivot] = {f: c for f, c in combination.items() if c}
    return solved
