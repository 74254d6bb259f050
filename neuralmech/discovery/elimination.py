"""Exact Gaussian elimination of sparse integer equations, many pivots at a time.

Each round solves rows for one unknown each, chosen so that no row holds the pivot of another; all are then put into
the other rows at once. The rows and pivots that add the fewest entries go first (Markowitz: (length of the row − 1) ·
(uses of the unknown − 1)), so an unknown that stands in one row costs nothing. Numbers are 64-bit integers, and
Python's where these would not hold them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuralmech.discovery.entries import Array, Entries, Growing, product, ranges

SLACK = 8  # rows up to twice the cheapest one's cost and this go together


@dataclass(frozen=True)
class Stage:
    """Rows that were solved together: Σ numbers·unknowns = 0, row i for unknown `pivots`[i], rows numbered in order."""

    pivots: Array
    rows: Entries


@dataclass(frozen=True)
class NullSpace:
    """Unknown `unknowns`[k] has the coefficient `numerators`[k]/`denominators`[k] of the free unknown `free`[k]."""

    unknowns: Array
    free: Array
    numerators: NDArray
    denominators: NDArray


def eliminate(rows: Entries, count: int) -> list[Stage]:
    """Solve equations in `count` unknowns; of several pivots that cost the same, the newest unknown is solved for.

    The newest one is the derived one (a product's output), so the basis stays with the parameters.
    """
    stages, priority = [], np.random.default_rng(0)
    rows = rows.simplified()
    while rows.rows.size:
        chosen, pivots = _independent(rows, count, priority)
        position = np.full(int(rows.rows[-1]) + 1, -1)
        position[chosen] = np.arange(chosen.size)
        where = position[rows.rows]
        solved = rows.only(where >= 0)
        stage = Stage(pivots, Entries(where[where >= 0], solved.columns, solved.values))
        stages.append(stage)
        rows = _substituted(rows.only(where < 0), stage, count)
    return stages


def _independent(rows: Entries, count: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Rows and a pivot of each, cheap ones, so that no row holds the pivot of another."""
    starts = rows.starts()
    uses = np.bincount(rows.columns, minlength=count)
    best = np.minimum.reduceat(uses[rows.columns] * count + (count - 1 - rows.columns), starts)
    pivots = count - 1 - best % count
    cost = (np.diff(starts, append=rows.rows.size) - 1) * (best // count - 1)
    cheap = np.flatnonzero(cost <= 2 * cost.min() + SLACK)
    # One row for each pivot: the cheapest, and of these one at random, lest chains be taken link by link.
    cheap = cheap[np.lexsort((random.permutation(cheap.size), cost[cheap]))]
    _, first = np.unique(pivots[cheap], return_index=True)
    cheap = cheap[np.sort(first)]
    rank = np.full(count, -1)  # of the row that an unknown is the pivot of
    rank[pivots[cheap]] = np.arange(cheap.size)
    mine = np.full(starts.size, -1)
    mine[cheap] = np.arange(cheap.size)
    a, b = mine[rows.rows], rank[rows.columns]
    meet = (a >= 0) & (b >= 0) & (a != b)
    kept = np.ones(cheap.size, dtype=bool)
    kept[np.maximum(a[meet], b[meet])] = False  # the better of two that meet stays, unless it meets a better one
    chosen = np.sort(cheap[kept])
    return chosen, pivots[chosen]


def _substituted(rows: Entries, stage: Stage, count: int) -> Entries:
    """Put a stage's solutions into other rows: each times its pivots' coefficients, minus multiples of the stage's."""
    if not rows.rows.size:
        return rows
    solver = np.full(count, -1)
    solver[stage.pivots] = np.arange(stage.pivots.size)
    own = stage.rows.values[stage.rows.columns == stage.pivots[stage.rows.rows]]
    by = solver[rows.columns]
    hit = by >= 0
    if not hit.any():
        return rows.simplified()
    scale = np.ones(int(rows.rows[-1]) + 1, dtype=own.dtype)
    if (abs(own) != 1).any():
        at = np.flatnonzero(hit)
        heads = np.flatnonzero(np.diff(rows.rows[at], prepend=-1))
        factors = _common_multiple(abs(own[by[at]]), heads)
        scale = scale.astype(factors.dtype)
        scale[rows.rows[at[heads]]] = factors
    values = product(rows.values, scale[rows.rows])
    others = stage.rows.starts()
    lengths = np.diff(others, append=stage.rows.rows.size)[by[hit]]
    taken = ranges(others[by[hit]], lengths)
    multiple = -(values[hit] // own[by[hit]])
    filled = product(np.repeat(multiple, lengths), stage.rows.values[taken])
    return Entries.of(
        np.concatenate([rows.rows, np.repeat(rows.rows[hit], lengths)]),
        np.concatenate([rows.columns, stage.rows.columns[taken]]),
        np.concatenate([values, filled]),
    ).simplified()


def back_substitute(stages: Iterable[Stage], free: Array, count: int) -> NullSpace:
    """Every unknown in terms of the free ones; what is zero has no entry."""
    pool = _Pool(free, count)
    for stage in reversed(list(stages)):
        mine = stage.rows.columns == stage.pivots[stage.rows.rows]
        own, rest = stage.rows.values[mine], stage.rows.only(~mine)
        pool.add(stage.pivots, own, rest)
    return pool.result()


class _Pool:
    """Solutions as they are found: for each unknown a stretch of (free unknown, numerator), and one denominator."""

    def __init__(self, free: Array, count: int) -> None:
        self._start = np.zeros(count, dtype=np.int64)
        self._length = np.zeros(count, dtype=np.int64)
        self._denominator: NDArray = np.ones(count, dtype=np.int64)
        self._start[free], self._length[free] = np.arange(free.size), 1
        self._free, self._numerator = Growing(free), Growing(np.ones(free.size, dtype=np.int64))

    def add(self, pivots: Array, own: NDArray, rest: Entries) -> None:
        """Solve own[i]·pivots[i] + rest[i] = 0, where all that is in `rest` is known."""
        under = self._denominator[rest.columns]
        common = np.ones(pivots.size, dtype=under.dtype)
        heads = rest.starts()
        if heads.size and (under != 1).any():
            multiples = _common_multiple(under, heads)
            common = common.astype(multiples.dtype)
            common[rest.rows[heads]] = multiples
        weights = product(rest.values, common[rest.rows] // under)
        lengths = self._length[rest.columns]
        taken = ranges(self._start[rest.columns], lengths)
        numerators = product(np.repeat(weights, lengths), self._numerator.array[taken])
        found = Entries.of(np.repeat(rest.rows, lengths), self._free.array[taken], numerators)
        self._store(pivots, product(own, common), found)

    def _store(self, pivots: Array, denominators: NDArray, found: Entries) -> None:
        starts = found.starts()
        lengths = np.diff(starts, append=found.rows.size)
        some = found.rows[starts]
        whole = np.ones_like(denominators)
        if some.size:
            shared = np.gcd(np.gcd.reduceat(found.values, starts), denominators[some])
            divisor = shared * np.where(denominators[some] < 0, 1, -1)  # x = −found/denominator
            whole[some] = denominators[some] // -divisor
            self._start[pivots[some]] = self._free.size + starts
            self._length[pivots[some]] = lengths
            self._free.append(found.columns)
            self._numerator.append(found.values // np.repeat(divisor, lengths))
        if whole.dtype != self._denominator.dtype:
            self._denominator = self._denominator.astype(object)
        self._denominator[pivots] = whole

    def result(self) -> NullSpace:
        unknowns = np.flatnonzero(self._length)
        lengths = self._length[unknowns]
        taken = ranges(self._start[unknowns], lengths)
        return NullSpace(
            np.repeat(unknowns, lengths),
            self._free.array[taken],
            self._numerator.array[taken],
            np.repeat(self._denominator[unknowns], lengths),
        )


def _common_multiple(values: NDArray, heads: Array) -> NDArray:
    """Least common multiple of each stretch of positive numbers that starts at `heads`."""
    if values.dtype != object:
        size = np.add.reduceat(np.log2(values.astype(float)), heads).max(initial=0)  # of the product
        values = values if size < 62 else values.astype(object)
    return np.lcm.reduceat(values, heads)
