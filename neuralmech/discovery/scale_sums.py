"""Unknowns that stand for sums of others, so that equal sums are one unknown; many at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuralmech.discovery.distinct import mixed
from neuralmech.discovery.entries import Entries, Growing, product, ranges
from neuralmech.discovery.system import Ids, System

Hashes = NDArray[np.uint64]


class Sums:
    """Table of the unknowns that stand for sums, each kept in terms of unknowns that stand for none.

    Coefficients are whole multiples of 1/`_unit`. Sums are looked up by a hash and compared in full; two that have the
    same hash and differ are two unknowns, each with its own equation.

    Examples
    --------
    >>> system = System()
    >>> a, b = system.new(2)
    >>> sums = Sums(system)
    >>> c = sums.of(np.array([[a, b], [b, a], [a, 0]]), [1, 1])
    >>> c.tolist()
    [3, 3, 1]
    >>> sums.of(np.array([[c[0], b]]), [1, -1]).tolist()
    [1]
    """

    def __init__(self, system: System) -> None:
        none = np.zeros(0, dtype=np.int64)
        self._system, self._unit = system, 1
        self._ids, self._starts = Growing(none), Growing(np.zeros(1, dtype=np.int64))  # ascending
        self._bases, self._shares = Growing(none), Growing(none)
        self._known: list[tuple[Hashes, Ids]] = []  # sorted hashes and whose they are, in a few parts

    def of(self, rows: Ids, coefficients: Sequence[int | Fraction]) -> Ids:
        """Unknown that stands for Σ_j coefficients[j]·rows[i, j] of each row i of representatives, (rows, terms)."""
        terms = self._in_bases(rows, coefficients)
        out = np.zeros(len(rows), dtype=np.int64)
        starts = terms.starts()
        lengths = np.diff(starts, append=terms.rows.size)
        plain = (lengths == 1) & (terms.values[starts] == self._unit)  # an unknown itself
        out[terms.rows[starts[plain]]] = terms.columns[starts[plain]]
        kept = terms.only(np.repeat(~plain, lengths))
        if kept.rows.size:
            out[kept.rows[kept.starts()]] = self._met(kept)
        return out

    def _in_bases(self, rows: Ids, coefficients: Sequence[int | Fraction]) -> Entries:
        """Terms of each row in unknowns that stand for no sum."""
        common = math.lcm(*(c.denominator for c in coefficients))
        numbers, ids = np.repeat(np.arange(len(rows)), rows.shape[1]), rows.ravel()
        whole = np.tile(np.array([int(c * common) for c in coefficients]), len(rows))
        at = np.minimum(np.searchsorted(self._ids.array, ids), max(self._ids.size - 1, 0))
        derived = self._ids.array[at] == ids if self._ids.size else np.zeros(ids.size, dtype=bool)
        simple = ~derived & (ids != 0)
        begin = self._starts.array[at[derived]]
        lengths = self._starts.array[at[derived] + 1] - begin
        taken = ranges(begin, lengths)
        shares = product(np.repeat(whole[derived], lengths), self._shares.array[taken])
        terms = Entries.of(
            np.concatenate([numbers[simple], np.repeat(numbers[derived], lengths)]),
            np.concatenate([ids[simple], self._bases.array[taken]]),
            np.concatenate([product(whole[simple], np.array([self._unit])), shares]),
        )
        if common == 1:
            return terms
        shared = int(np.gcd.reduce(np.append(terms.values, common)))
        self._refine(common // shared)
        return Entries(terms.rows, terms.columns, terms.values // shared)

    def _refine(self, factor: int) -> None:
        """Make the unit of coefficients smaller."""
        if factor == 1:
            return
        self._unit *= factor
        self._shares = Growing(product(self._shares.array, np.array([factor])))
        self._known = []
        self._remember(
            _hashes(self._bases.array, self._shares.array, self._starts.array[:-1]), np.arange(self._ids.size)
        )

    def _met(self, terms: Entries) -> Ids:
        """Unknown of each row's sum: one that is there, or a new one."""
        starts = terms.starts()
        lengths = np.diff(starts, append=terms.rows.size)
        hashes = _hashes(terms.columns, terms.values, starts)
        index = self._found(hashes, terms, starts, lengths)
        new = np.flatnonzero(index < 0)
        if new.size:
            which, _ = pd.factorize(hashes[new])  # numbered in order of appearance
            _, first = np.unique(which, return_index=True)
            mine, other = starts[new], starts[new[first]][which]
            same = _same((terms.columns, terms.values), mine, lengths[new], (terms.columns, terms.values), other)
            same &= lengths[new] == lengths[new[first]][which]
            alone = np.flatnonzero(~same)
            which[alone] = first.size + np.arange(alone.size)
            first = np.concatenate([first, alone])
            index[new] = self._ids.size + which
            self._add(terms, new[first], starts, lengths, hashes)
        return self._ids.array[index]

    def _found(self, hashes: Hashes, terms: Entries, starts: Ids, lengths: Ids) -> Ids:
        """Place in the table of each sum that is there, −1 for others."""
        index = np.full(hashes.size, -1)
        for known, places in self._known:
            at = np.minimum(np.searchsorted(known, hashes), known.size - 1)
            index = np.where((known[at] == hashes) & (index < 0), places[at], index)
        seen = np.flatnonzero(index >= 0)
        begin, end = self._starts.array[index[seen]], self._starts.array[index[seen] + 1]
        same = end - begin == lengths[seen]
        seen_same, begin = seen[same], begin[same]
        table = (self._bases.array, self._shares.array)
        equal = _same((terms.columns, terms.values), starts[seen_same], lengths[seen_same], table, begin)
        index[seen[~same]] = -1
        index[seen_same[~equal]] = -1
        return index

    def _add(self, terms: Entries, new: Ids, starts: Ids, lengths: Ids, hashes: Hashes) -> None:
        """Put rows of `terms` into the table, each with an unknown and its equation."""
        taken = ranges(starts[new], lengths[new])
        bases, shares = terms.columns[taken], terms.values[taken]
        ids = self._system.new(new.size)
        ends = np.cumsum(lengths[new])
        unit = np.full(new.size, -self._unit, dtype=np.int64 if self._unit < 2**62 else object)
        self._system.add_sums(np.insert(bases, ends, ids), np.insert(shares, ends, unit), lengths[new] + 1)
        self._remember(hashes[new], self._ids.size + np.arange(new.size))
        self._starts.append(self._bases.size + ends)
        self._ids.append(ids)
        self._bases.append(bases)
        self._shares.append(shares)

    def _remember(self, hashes: Hashes, places: Ids) -> None:
        if not hashes.size:
            return
        while self._known and self._known[-1][0].size < 2 * hashes.size:
            before, those = self._known.pop()
            hashes, places = np.concatenate([before, hashes]), np.concatenate([those, places])
        order = np.argsort(hashes, kind="stable")
        self._known.append((hashes[order], places[order]))


Terms = tuple[Ids, NDArray]


def _same(a: Terms, a_starts: Ids, lengths: Ids, b: Terms, b_starts: Ids) -> NDArray[np.bool_]:
    """Whether stretches of two lists of (base, share) are equal; each of one length at least."""
    if not lengths.size:
        return np.zeros(0, dtype=bool)
    here, there = ranges(a_starts, lengths), np.minimum(ranges(b_starts, lengths), b[0].size - 1)
    equal = (a[0][here] == b[0][there]) & (a[1][here] == b[1][there])
    return np.logical_and.reduceat(equal.astype(bool), np.cumsum(lengths) - lengths)


def _hashes(bases: Ids, shares: NDArray, starts: Ids) -> Hashes:
    """One number for each stretch of (base, share)."""
    if shares.dtype == object:
        shares = np.array([hash(s) for s in shares.tolist()], dtype=np.int64)
    return np.add.reduceat(mixed(bases, shares), starts) if starts.size else np.zeros(0, dtype=np.uint64)
