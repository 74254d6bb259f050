"""From the null space of log-scales to the charges of scale and rescale symmetries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.discovery.components import Signature, narrowed, ordered, part_of
from neuralmech.discovery.scale import ScaleAlgebra
from neuralmech.symmetry.family import Axis, Family, Term, layer_names
from neuralmech.symmetry.names import FamilyName

Shapes = Mapping[str, torch.Size]


def diagonal_families(
    scales: ScaleAlgebra, shapes: Shapes, translations: Sequence[Term], components: int
) -> list[Family]:
    """Charges of scale and rescale symmetries; `translations` are the terms of all `components` of shifts.

    An entry that a translation moves alone (a bias before BatchNorm) has no influence at all and is left to
    translation. One that only a scale moves alone (BatchNorm's weight before another BatchNorm) has no gradient
    either, but its sign is felt: a translation would carry it through zero.
    """
    solution = scales.system.solve()
    dead = _dead_entries(translations, components)
    parts: list[Term] = []
    for name in shapes:
        if name in scales.entry_ids:
            ids = scales.entry_ids[name]
            axis, ids = ("entries", ids) if name in dead else narrowed(ids)
            values = solution.values(ids)
            if name in dead:
                values = sparse.csr_array(values.multiply(~dead[name][:, None]))
            parts.append(part_of(name, axis, values, 1))
        elif name in scales.factors:
            weight = scales.factors[name]
            rows, columns = solution.values(weight.rows), -solution.values(weight.columns)
            rows, columns = _without_cancelling(rows, columns, weight.groups)
            if name in dead:
                rows = _without_dead(rows, "rows", dead[name], shapes[name])
                columns = _without_dead(columns, "columns", dead[name], shapes[name])
            parts.append(part_of(name, "rows", rows, 1))
            parts.append(part_of(name, "columns", columns, 1, weight.groups))
    order, signatures, firsts, norms = ordered(parts, solution.dimension)
    kind_of = {signature: _kind(signature) for signature in set(signatures)}
    kinds = [kind_of[signature] for signature in signatures]
    return [
        _diagonal_family(name, [i for i, k in enumerate(kinds) if k == name], order, signatures, firsts, norms, parts)
        for name in ("scale", "rescale")
    ]


def _diagonal_family(
    name: FamilyName,
    chosen: list[int],
    order: NDArray,
    signatures: list[Signature],
    firsts: list[int],
    norms: NDArray,
    parts: list[Term],
) -> Family:
    first, factors = np.arange(len(chosen), dtype=np.int64), 1.0 / norms[chosen]
    at = np.full(int(order.max(initial=-1)) + 1, -1)
    at[order[chosen]] = first
    terms = []
    for part in parts:
        rows = _rows_at(part.coefficients, at, factors)
        if rows.nnz:
            terms.append(Term(part.parameter, part.axis, rows, first, 1, part.groups))
    site_of = {signature: _diagonal_site(signature) for signature in {signatures[i] for i in chosen}}
    sites = tuple(site_of[signatures[i]] for i in chosen)
    return Family(name, tuple(terms), sites, np.array([firsts[i] for i in chosen], dtype=np.int64))


def _rows_at(matrix: sparse.csr_array, at: NDArray[np.int64], factors: NDArray[np.float64]) -> sparse.csr_array:
    """Put rows where `at` says (not at all: −1) and multiply them; most are empty, and cost nothing."""
    shape, some = (factors.size, matrix.shape[1]), np.flatnonzero(np.diff(matrix.indptr))
    some = some[some < at.size]
    some = some[at[some] >= 0]
    some = some[np.argsort(at[some])]
    rows, ends = matrix[some], np.zeros(factors.size + 1, dtype=np.int64)
    lengths = np.diff(rows.indptr)
    ends[at[some] + 1] = lengths
    data = rows.data * np.repeat(factors[at[some]], lengths)
    return sparse.csr_array((data, rows.indices, np.cumsum(ends)), shape=shape)


def _dead_entries(translations: Sequence[Term], components: int) -> dict[str, NDArray[np.bool_]]:
    """Entries that a translation charge moves alone: the loss does not depend on them."""
    used = np.zeros(components)
    for term in translations:  # a component with rows or columns is never a single entry
        used += np.diff(term.coefficients.indptr) * (1 if term.axis == "entries" else 2)
    alone = (used == 1).astype(float)
    entries = [term for term in translations if term.axis == "entries"]
    dead = {term.parameter: abs(term.coefficients).T @ alone > 0 for term in entries}
    return {name: mask for name, mask in dead.items() if mask.any()}


def _without_dead(values: sparse.csr_array, axis: Axis, dead: NDArray[np.bool_], shape: torch.Size) -> sparse.csr_array:
    """Leave out rows or columns of a weight (O, C, …) whose entries are all dead."""
    whole = np.asarray(dead.reshape(shape[0], shape[1], -1).all(axis=(1, 2) if axis == "rows" else (0, 2)))
    return sparse.csr_array(values.multiply(~whole[:, None])) if whole.size == values.shape[0] else values


def _without_cancelling(rows: sparse.csr_array, columns: sparse.csr_array, groups: int):
    """Drop what cancels: a square weight inside a residual stream scales as r − c = 0 for the stream's charge."""
    row_keys, row = _common(rows, groups)
    column_keys, column = _common(columns, groups)
    both, at_row, at_column = np.intersect1d(row_keys, column_keys, return_indices=True)
    cancel = both[row[at_row] + column[at_column] == 0]
    if not cancel.size:
        return rows, columns
    return _without(rows, groups, cancel), _without(columns, groups, cancel)


def _keys(matrix: sparse.csr_array, groups: int) -> NDArray[np.int64]:
    """Group and component of each entry, as one number; rows are split into groups of the same length."""
    group = np.arange(matrix.shape[0]) * groups // max(matrix.shape[0], 1)
    return np.repeat(group, np.diff(matrix.indptr)) * matrix.shape[1] + matrix.indices


def _common(matrix: sparse.csr_array, groups: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The keys at which one number stands in every row of the group, and the number."""
    keys = _keys(matrix, groups)
    order = np.argsort(keys, kind="stable")
    keys, data = keys[order], matrix.data[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    if not starts.size:
        return keys, data
    full = np.diff(starts, append=keys.size) == matrix.shape[0] // groups
    same = np.minimum.reduceat(data, starts) == np.maximum.reduceat(data, starts)
    chosen = starts[full & same]
    return keys[chosen], data[chosen]


def _without(matrix: sparse.csr_array, groups: int, cancelled: NDArray[np.int64]) -> sparse.csr_array:
    keep = ~np.isin(_keys(matrix, groups), cancelled)
    ends = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr]
    return sparse.csr_array((matrix.data[keep], matrix.indices[keep], ends), shape=matrix.shape)


def _kind(signature: Signature) -> FamilyName:
    return "scale" if len({sign for _, sign in signature}) == 1 else "rescale"


def _diagonal_site(signature: Signature) -> str:
    grows = layer_names(name for name, sign in signature if sign > 0)
    shrinks = layer_names(name for name, sign in signature if sign < 0)
    return " -> ".join(side for side in (grows, shrinks) if side)
