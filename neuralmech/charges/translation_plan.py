"""What must be summed to have every translation charge: pieces of the parameters, times coefficients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.charges.plan import Ints, joined, table_of
from neuralmech.symmetry.family import Family, Term
from neuralmech.symmetry.layout import Layout

PIECE = ("offset", "outer", "stride", "inner", "charge", "outer_step", "inner_step")


@dataclass(frozen=True)
class TranslationPlan:
    """Translation charges: coefficient × a strided piece of the vector, added to charges.

    `pieces` has a row per piece, with the columns `PIECE`: entry (a, j) of `outer` × `inner`, at offset + a·stride + j,
    goes to charge + a·outer_step + j·inner_step. What is no more than one entry is in `entries` (charges × parameters)
    instead.
    """

    pieces: Ints
    coefficients: NDArray[np.float64]
    entries: sparse.csr_array

    @property
    def charges(self) -> int:
        """Number of charges."""
        return self.entries.shape[0]

    def only(self, chosen: NDArray[np.bool_]) -> TranslationPlan:
        """Some of the pieces, and all single entries."""
        return TranslationPlan(self.pieces[chosen], self.coefficients[chosen], self.entries)


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
    rest: TranslationPlan


def translation_plan(families: Sequence[Family], layout: Layout) -> TranslationPlan:
    """Plan the sums for translation families, in the families' order."""
    pieces, coefficients, first = [np.zeros((0, len(PIECE)), dtype=np.int64)], [np.zeros(0)], 0
    for family in families:
        for term in family.terms:
            table, data = _merged(*_pieces(term, first, layout))
            pieces.append(table)
            coefficients.append(data)
        first += len(family)
    table, weights = np.concatenate(pieces), np.concatenate(coefficients)
    is_entry = table[:, 1] * table[:, 3] == 1
    triple = (weights[is_entry], (table[is_entry, 4], table[is_entry, 0]))
    entries = sparse.csr_array(triple, shape=(first, layout.size))
    return TranslationPlan(table[~is_entry], weights[~is_entry], entries)


def _pieces(term: Term, first: int, layout: Layout) -> tuple[Ints, NDArray[np.float64]]:
    """A piece for each coefficient of a term: what lies under an element of its axis."""
    part, start, shape = term.coefficients.tocoo(), layout.offsets[term.parameter], term.shape(layout.shapes)
    size, element = math.prod(shape), part.col.astype(np.int64)
    outer, stride, inner = 1, 0, 1
    if term.axis == "rows":
        inner = size // shape[0]
        element *= inner
    elif term.axis == "columns":
        outer, stride, inner = shape[0] // term.groups, size // shape[0], math.prod(shape[2:])
        element = element // shape[1] * (size // term.groups) + element % shape[1] * inner
    steps = (0, 0) if term.width == 1 else (inner, 1)
    table = np.empty((part.nnz, len(PIECE)), dtype=np.int64)
    table[:, 0], table[:, 4] = start + element, first + term.first[part.row]
    table[:, 1:4], table[:, 5:] = (outer, stride, inner), steps
    return table, part.data


def _merged(table: Ints, data: NDArray[np.float64]) -> tuple[Ints, NDArray[np.float64]]:
    """Join pieces side by side, which are of one charge or of one after the other: memory is then read in order."""
    before, after = table[:-1], table[1:]
    beside = (after[:, 0] == before[:, 0] + before[:, 3]) & (data[1:] == data[:-1])
    step, thin = after[:, 4] - before[:, 4], after[:, 3] == 1
    summed = beside & (step == 0) & (thin | (after[:, 6] == 0))
    counted = beside & (step == 1) & thin & ((after[:, 1] == 1) | (after[:, 5] == 0))
    kind = int(counted.sum() > summed.sum())
    begins = np.flatnonzero(np.concatenate([[True], ~(counted if kind else summed)])[: len(table)])
    if len(begins) == len(table):
        return table, data
    out = table[begins]
    out[:, 3] = np.add.reduceat(table[:, 3], begins)
    out[:, 6] = np.where(np.diff(np.append(begins, len(table))) > 1, kind, out[:, 6])
    return out, data[begins]


def whole_rows(plan: TranslationPlan, blocks: Ints, first: int, layout: Layout) -> WholeRows:
    """Tell apart the weights that can be summed with the `blocks` of a quadratic plan, row by row.

    Their sums go to `first` and on.
    """
    number = np.searchsorted(list(layout.offsets.values()), plan.pieces[:, 0], side="right") - 1
    is_rest, sums = np.ones(len(number), dtype=bool), first
    found, coefficients = [], []
    for n in np.unique(number):
        offset, shape = (list(of.values())[n] for of in (layout.offsets, layout.shapes))
        mine, width = np.flatnonzero(number == n), math.prod(shape[1:])
        start, outer, stride, inner, charge, outer_step, inner_step = plan.pieces[mine].T
        other = blocks[blocks[:, 0] == offset]
        is_cut = (other[:, 1] > 1) | (other[:, 2] != shape[0])
        is_whole = (inner == width) & ((start - offset) % max(width, 1) == 0)
        is_row = is_whole & (inner_step == 1) & ((outer == 1) | ((stride == width) & (outer_step == 0)))
        if shape[0] == 1 or not is_row.any() or np.ptp(charge[is_row]) or is_cut.any():
            continue
        mine, row = mine[is_row], np.zeros(shape[0])
        for at, rows, c in zip((start - offset)[is_row] // width, outer[is_row], plan.coefficients[mine], strict=True):
            row[at : at + rows] += c
        found.append((offset, width, sum(map(len, coefficients)), sums, charge[is_row][0]))
        coefficients.append(row)
        is_rest[mine] = False
        sums += width
    return WholeRows(table_of(found, 5), joined(coefficients), sums - first, plan.only(is_rest))
