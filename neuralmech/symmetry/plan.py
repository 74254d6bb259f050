"""What must be summed to have every charge: rows and columns of weights, then a few sums per charge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.symmetry.group import Family, Term
from neuralmech.symmetry.layout import Layout

Ints = NDArray[np.int64]
NONE = -1


@dataclass(frozen=True)
class QuadraticPlan:
    """Diagonal charges of all families together.

    Attributes
    ----------
    blocks
        One row per parameter: offset, groups, rows per group, columns, kernel taps, where its row sums and its
        column sums go (`NONE`: not needed).
    sums
        Number of sums.
    combine
        Charges × sums.
    """

    blocks: Ints
    sums: int
    combine: sparse.csr_array


@dataclass(frozen=True)
class LinearPlan:
    """Translation charges: coefficient × a strided piece of the vector, added to consecutive charges.

    `pieces` has a row per piece: offset, outer count, outer stride, inner count (inner stride 1), first charge. What is
    no more than one entry is in `entries` (charges × parameters) instead.
    """

    pieces: Ints
    coefficients: NDArray[np.float64]
    entries: sparse.csr_array

    @property
    def charges(self) -> int:
        """Number of charges."""
        return self.entries.shape[0]


@dataclass(frozen=True)
class WholeRows:
    """Of translation charges: weights whose rows, each times a coefficient, are added up.

    Attributes
    ----------
    blocks
        One row per weight: offset, entries of a row, first of its coefficients, where its sums go, first charge.
    coefficients
        One per row, weight by weight.
    sums
        Number of sums.
    rest
        Everything else.
    """

    blocks: Ints
    coefficients: NDArray[np.float64]
    sums: int
    rest: LinearPlan


def quadratic_plan(families: Sequence[Family], layout: Layout) -> QuadraticPlan:
    """Plan the sums for scale and rescale families, in the families' order."""
    places, blocks, size = _blocks([t for f in families for t in f.terms], layout)
    rows, columns, data, first = [], [], [], 0
    for family in families:
        for term in family.terms:
            part = term.coefficients.tocoo()
            rows.append(first + term.first[part.row])
            columns.append(places[term.axis, term.parameter] + part.col)
            data.append(part.data)
        first += len(family)
    triple = (_joined(data), (_joined(rows).astype(np.int64), _joined(columns).astype(np.int64)))
    return QuadraticPlan(blocks, size, sparse.csr_array(triple, shape=(first, size)))


def linear_plan(families: Sequence[Family], layout: Layout) -> LinearPlan:
    """Plan the sums for translation families, in the families' order."""
    pieces, coefficients, first = [np.zeros((0, 5), dtype=np.int64)], [np.zeros(0)], 0
    for family in families:
        for term in family.terms:
            part = term.coefficients.tocoo()
            place = _piece(term, layout)
            table = np.empty((part.nnz, 5), dtype=np.int64)
            table[:, 0] = place(part.col)
            table[:, 1:4] = _strides(term, layout.shapes[term.parameter])
            table[:, 4] = first + term.first[part.row]
            pieces.append(table)
            coefficients.append(part.data)
        first += len(family)
    table, weights = np.concatenate(pieces), np.concatenate(coefficients)
    is_entry = table[:, 1] * table[:, 3] == 1
    triple = (weights[is_entry], (table[is_entry, 4], table[is_entry, 0]))
    entries = sparse.csr_array(triple, shape=(first, layout.size))
    return LinearPlan(table[~is_entry], weights[~is_entry], entries)


def whole_rows(plan: LinearPlan, blocks: Ints, first: int, layout: Layout) -> WholeRows:
    """Tell apart the weights that can be summed with the `blocks` of a quadratic plan, row by row.

    Their sums go to `first` and on.
    """
    number = np.searchsorted(list(layout.offsets.values()), plan.pieces[:, 0], side="right") - 1
    is_rest, sums = np.ones(len(number), dtype=bool), first
    found, coefficients = [], [np.zeros(0)]
    for n in np.unique(number):
        offset, shape = (list(of.values())[n] for of in (layout.offsets, layout.shapes))
        mine, width = number == n, math.prod(shape[1:])
        start, outer, _, inner, charge = plan.pieces[mine].T
        other = blocks[blocks[:, 0] == offset]
        is_cut = (other[:, 1] > 1) | (other[:, 2] != shape[0])
        if shape[0] == 1 or (outer > 1).any() or (inner != width).any() or np.ptp(charge) or is_cut.any():
            continue
        row = np.zeros(shape[0])
        np.add.at(row, (start - offset) // width, plan.coefficients[mine])
        found.append((offset, width, sum(map(len, coefficients)), sums, charge[0]))
        coefficients.append(row)
        is_rest[mine] = False
        sums += width
    rest = LinearPlan(plan.pieces[is_rest], plan.coefficients[is_rest], plan.entries)
    return WholeRows(_table(found, 5), np.concatenate(coefficients), sums - first, rest)


def _table(rows: Sequence[tuple[int, ...]], width: int) -> Ints:
    return np.array(rows, dtype=np.int64).reshape(-1, width)


def _blocks(terms: Sequence[Term], layout: Layout) -> tuple[dict[tuple[str, str], int], Ints, int]:
    needed: dict[tuple[str, bool], dict[str, int]] = {}
    for term in terms:
        needed.setdefault((term.parameter, term.axis == "entries"), {})[term.axis] = term.groups
    places: dict[tuple[str, str], int] = {}
    blocks, size = [], 0
    for (name, by_entry), axes in sorted(needed.items(), key=lambda item: layout.offsets[item[0][0]]):
        shape = layout.shapes[name]
        if by_entry:
            places["entries", name] = size
            blocks.append((layout.offsets[name], 1, 1, math.prod(shape), 1, NONE, size))
            size += math.prod(shape)
            continue
        groups = axes.get("columns", 1)
        outer = shape[0]
        inner = shape[1] if "columns" in axes else math.prod(shape[1:])
        taps = math.prod(shape[2:]) if "columns" in axes else 1
        at = {"rows": NONE, "columns": NONE}
        for axis, length in (("rows", outer), ("columns", groups * inner)):
            if axis in axes:
                at[axis] = places[axis, name] = size
                size += length
        blocks.append((layout.offsets[name], groups, outer // groups, inner, taps, at["rows"], at["columns"]))
    return places, _table(blocks, 7), size


def _piece(term: Term, layout: Layout):
    """Offset of each element of a term's axis."""
    start, shape = layout.offsets[term.parameter], layout.shapes[term.parameter]
    if term.axis == "entries":
        return lambda element: start + element
    if term.axis == "rows":
        return lambda element: start + element * math.prod(shape[1:])
    taps, group = math.prod(shape[2:]), math.prod(shape) // term.groups
    return lambda element: start + (element // shape[1]) * group + (element % shape[1]) * taps


def _strides(term: Term, shape: Sequence[int]) -> tuple[int, int, int]:
    """Outer count, outer stride, inner count of the entries under one element of a term's axis."""
    if term.axis == "entries":
        return 1, 0, 1
    if term.axis == "rows":
        return 1, 0, math.prod(shape[1:])
    return shape[0] // term.groups, math.prod(shape[1:]), math.prod(shape[2:])


def _joined(parts: list[NDArray]) -> NDArray:
    return np.concatenate([np.zeros(0), *parts])


def families_by_form(families: Mapping[str, Family]) -> tuple[list[Family], list[Family]]:
    """Diagonal families and translation families."""
    diagonal = [f for f in families.values() if not f.is_translation and f.terms]
    return diagonal, [f for f in families.values() if f.is_translation]
