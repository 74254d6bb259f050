"""What must be summed to have every charge: rows and columns of weights, then a few sums per charge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.symmetry.family import Family, Term
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
    triple = (joined(data), (joined(rows).astype(np.int64), joined(columns).astype(np.int64)))
    return QuadraticPlan(blocks, size, sparse.csr_array(triple, shape=(first, size)))


def table_of(rows: Sequence[tuple[int, ...]], width: int) -> Ints:
    """Rows of so many numbers each, or none."""
    return np.array(rows, dtype=np.int64).reshape(-1, width)


def _blocks(terms: Sequence[Term], layout: Layout) -> tuple[dict[tuple[str, str], int], Ints, int]:
    needed: dict[tuple[str, bool], dict[str, int]] = {}
    seen: dict[str, Sequence[int]] = {}
    for term in terms:
        needed.setdefault((term.parameter, term.axis == "entries"), {})[term.axis] = term.groups
        seen[term.parameter] = term.shape(layout.shapes)
    places: dict[tuple[str, str], int] = {}
    blocks, size = [], 0
    for (name, by_entry), axes in sorted(needed.items(), key=lambda item: layout.offsets[item[0][0]]):
        shape = seen[name]
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
    return places, table_of(blocks, 7), size


def joined(parts: Sequence[NDArray]) -> NDArray:
    """One array, if only an empty one."""
    return np.concatenate([np.zeros(0), *parts])


def families_by_form(families: Mapping[str, Family]) -> tuple[list[Family], list[Family]]:
    """Diagonal families and translation families."""
    diagonal = [f for f in families.values() if not f.is_translation and f.terms]
    return diagonal, [f for f in families.values() if f.is_translation]
