"""From the null spaces to charges: signs, families, order and names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.discovery.scale import ScaleAlgebra
from neuralmech.discovery.shift import ShiftAlgebra
from neuralmech.discovery.system import Ids, Solution
from neuralmech.symmetry.family import Axis, Family, FamilyName, Term, layer_names

Shapes = Mapping[str, torch.Size]
Signature = tuple[tuple[str, int], ...]  # (parameter, sign) in the order of the model's parameters


def translation_family(algebra: ShiftAlgebra, solution: Solution, shapes: Shapes) -> Family:
    """Charges of all translations: per component of the null space, one for each column of its weights."""
    parts: list[Term] = []
    for name, shape in shapes.items():
        if name in algebra.entry_ids:
            axis, ids = _narrowed(algebra.entry_ids[name])
            parts.append(_part(name, axis, solution.values(ids), 1))
        elif name in algebra.weights:
            axis, ids = algebra.weights[name]
            groups = ids.size // max(shape[1], 1) if axis == "columns" else 1
            parts.append(_part(name, axis, solution.values(ids), math.prod(shape) // max(ids.size, 1), groups))
        if name in algebra.uniform:
            parts.append(_part(name, "columns", solution.values(algebra.uniform[name]), 1))
        if name in algebra.redundant:
            parts.append(_part(name, "entries", _along_normals(algebra, name, solution), 1))
    order, signatures, firsts, _ = _ordered(parts, solution.dimension)
    widths = np.ones(solution.dimension, dtype=np.int64)
    for part in parts:
        widths[np.unique(part.coefficients.tocoo().row)] = part.width
    widths = widths[order]
    first = np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(np.int64)
    sites = [_translation_site(s) for s in signatures]
    terms = [replace(p, coefficients=rows, first=first) for p in parts if (rows := p.coefficients[order]).nnz]
    channels = _translation_channels(sites, widths, firsts)
    return Family("translation", tuple(terms), tuple(np.repeat(sites, widths).tolist()), channels)


def _along_normals(algebra: ShiftAlgebra, name: str, solution: Solution) -> sparse.csr_array:
    """What a weight's redundant displacements are entry by entry: sparse, shape (entries, components)."""
    found = algebra.redundant[name]
    _, outputs, taps = found.ids.shape
    normals = sparse.coo_array(found.normals[:, :-1])
    o, t = (g.ravel()[:, None] for g in np.meshgrid(np.arange(outputs), np.arange(taps), indexing="ij"))
    unknown = (normals.row * outputs + o) * taps + t
    channels = normals.shape[1]
    is_right = algebra.weights[name][0] == "columns"
    entry = normals.col * outputs + o if is_right else (o * channels + normals.col) * taps + t
    data = np.broadcast_to(normals.data, unknown.shape)
    triple = (data.ravel(), (entry.ravel(), unknown.ravel()))
    spread = sparse.csr_array(triple, shape=(channels * outputs * taps, found.ids.size))
    return sparse.csr_array(spread @ solution.values(found.ids))


def _translation_channels(sites: list[str], widths: NDArray, firsts: list[int]) -> NDArray[np.int64]:
    """Number the charges: by entry for single parameters, by column (on from component to component) else."""
    taken: dict[str, int] = {}
    wide = {site for site, width in zip(sites, widths.tolist(), strict=True) if width > 1}
    channels = []
    for site, width, first in zip(sites, widths.tolist(), firsts, strict=True):
        start = taken.get(site, 0) if site in wide else first
        taken[site] = start + width
        channels.append(np.arange(start, start + width))
    return np.concatenate(channels or [np.zeros(0)]).astype(np.int64)


def diagonal_families(
    scales: ScaleAlgebra, shifts: ShiftAlgebra, shift_solution: Solution, shapes: Shapes
) -> list[Family]:
    """Charges of scale and rescale symmetries.

    An entry that a translation moves alone (a bias before BatchNorm) has no influence at all and is left to
    translation. One that only a scale moves alone (BatchNorm's weight before another BatchNorm) has no gradient
    either, but its sign is felt: a translation would carry it through zero.
    """
    solution = scales.system.solve()
    dead = _dead_entries(shifts, shift_solution, shapes)
    parts: list[Term] = []
    for name in shapes:
        if name in scales.entry_ids:
            ids = scales.entry_ids[name]
            axis, ids = ("entries", ids) if name in dead else _narrowed(ids)
            values = solution.values(ids)
            if name in dead:
                values = sparse.csr_array(values.multiply(~dead[name][:, None]))
            parts.append(_part(name, axis, values, 1))
        elif name in scales.factors:
            weight = scales.factors[name]
            rows, columns = solution.values(weight.rows), -solution.values(weight.columns)
            rows, columns = _without_cancelling(rows, columns, weight.groups)
            if name in dead:
                rows = _without_dead(rows, "rows", dead[name], shapes[name])
                columns = _without_dead(columns, "columns", dead[name], shapes[name])
            parts.append(_part(name, "rows", rows, 1))
            parts.append(_part(name, "columns", columns, 1, weight.groups))
    order, signatures, firsts, norms = _ordered(parts, solution.dimension)
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


def _narrowed(ids: Ids) -> tuple[Axis, Ids]:
    """Unknowns of a parameter's entries: one for each row or column where a norm binds the rest together."""
    apart = [d for d, (n, step) in enumerate(zip(ids.shape, ids.strides, strict=True)) if n > 1 and step]
    if ids.ndim < 2 or ids.size in (0, ids.shape[0]) or any(d > 1 for d in apart) or len(apart) > 1:
        return "entries", ids
    if apart == [1]:
        return "columns", ids[0].reshape(ids.shape[1], -1)[:, 0]
    return "rows", ids.reshape(ids.shape[0], -1)[:, 0]


def _part(name: str, axis: Axis, values: sparse.csr_array, width: int, groups: int = 1) -> Term:
    coefficients = sparse.csr_array(values.T)
    coefficients.eliminate_zeros()
    return Term(name, axis, coefficients, np.zeros(0, dtype=np.int64), width, groups)


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


def _dead_entries(shifts: ShiftAlgebra, solution: Solution, shapes: Shapes) -> dict[str, NDArray[np.bool_]]:
    """Entries that a translation charge moves alone: the loss does not depend on them."""
    narrowed = {n: _narrowed(shifts.entry_ids[n]) for n in shapes if n in shifts.entry_ids}
    values = {n: solution.values(ids) for n, (axis, ids) in narrowed.items() if axis == "entries"}
    values |= {n: _along_normals(shifts, n, solution) for n in shapes if n in shifts.redundant}
    used = np.zeros(solution.dimension)
    for matrix in values.values():
        used += np.asarray((matrix != 0).sum(axis=0)).ravel()
    rows_of_weights = (rows for _, rows in shifts.weights.values())
    for rows in (
        *(ids for axis, ids in narrowed.values() if axis != "entries"),
        *rows_of_weights,
        *shifts.uniform.values(),
    ):  # a component with weights is never a single entry
        used += 2 * np.asarray((solution.values(rows) != 0).sum(axis=0)).ravel()
    alone = (used == 1).astype(float)
    dead = {name: np.asarray(abs(matrix) @ alone).ravel() > 0 for name, matrix in values.items()}
    return {name: mask for name, mask in dead.items() if mask.any()}


def _without_dead(values: sparse.csr_array, axis: Axis, dead: NDArray[np.bool_], shape: torch.Size) -> sparse.csr_array:
    """Leave out rows or columns of a weight (O, C, …) whose entries are all dead."""
    whole = np.asarray(dead.reshape(shape[0], shape[1], -1).all(axis=(1, 2) if axis == "rows" else (0, 2)))
    return sparse.csr_array(values.multiply(~whole[:, None])) if whole.size == values.shape[0] else values


def _ordered(parts: list[Term], components: int) -> tuple[NDArray, list[Signature], list[int], NDArray]:
    """Order the components by their first parameter and entry there.

    Returns their order, what they move and with which sign, the index of the first entry moved, and its
    coefficient. "First" prefers what grows (rows of a weight, entries) to what shrinks (columns).
    """
    lead = np.full((components, 3), np.iinfo(np.int64).max)  # (columns last, part, index)
    coefficient = np.ones(components)
    none = np.zeros((2, 0), dtype=np.int64)
    moved = [none]  # component; twice the part, and one more where its sign is +
    for p, part in enumerate(parts):
        csr = part.coefficients
        csr.sort_indices()
        some = np.flatnonzero(np.diff(csr.indptr))
        starts = csr.indptr[some]
        if not some.size:
            continue
        last = int(part.axis == "columns")
        better = last < lead[some, 0]  # of parts of one kind, the first leads
        lead[some[better]] = np.column_stack([np.full((int(better.sum()), 2), (last, p)), csr.indices[starts[better]]])
        coefficient[some[better]] = csr.data[starts[better]]
        for sign, extreme in enumerate((np.minimum, np.maximum)):
            with_sign = some[extreme.reduceat(csr.data, starts) * (2 * sign - 1) > 0]
            moved.append(np.stack([with_sign, np.full(with_sign.size, 2 * p + sign)]))
    component, what = np.concatenate(moved, axis=1)
    by_component = np.argsort(component, kind="stable")
    begin = np.concatenate([[0], np.cumsum(np.bincount(component, minlength=components))])
    order = np.lexsort(lead.T[::-1])
    order = order[np.diff(begin)[order] > 0]
    names = [part.parameter for part in parts]
    signatures = _signatures(names, what[by_component], begin, order, coefficient)
    return order, signatures, lead[order, 2].tolist(), coefficient[order]


def _signatures(
    names: list[str], moved: NDArray, begin: NDArray, order: NDArray, coefficient: NDArray
) -> list[Signature]:
    """What each component moves and with which sign, such that what it moves first grows; equal ones are one object."""
    places, width = moved.tobytes(), moved.itemsize
    seen: dict[tuple[bytes, bool], Signature] = {}
    out = []
    for start, end, grows in zip(
        (begin[order] * width).tolist(),
        (begin[order + 1] * width).tolist(),
        (coefficient[order] > 0).tolist(),
        strict=True,
    ):
        key = (places[start:end], grows)
        if key not in seen:
            those = moved[start // width : end // width].tolist()
            seen[key] = tuple(dict.fromkeys((names[m // 2], 1 if (m % 2 == 1) == grows else -1) for m in those))
        out.append(seen[key])
    return out


def _kind(signature: Signature) -> FamilyName:
    return "scale" if len({sign for _, sign in signature}) == 1 else "rescale"


def _diagonal_site(signature: Signature) -> str:
    grows = layer_names(name for name, sign in signature if sign > 0)
    shrinks = layer_names(name for name, sign in signature if sign < 0)
    return " -> ".join(side for side in (grows, shrinks) if side)


def _translation_site(signature: Signature) -> str:
    names = [(name, sign) for name, sign in signature]
    text = names[0][0] + "".join(f" {'+' if sign > 0 else '-'} {name}" for name, sign in names[1:3])
    return text if len(names) <= 3 else f"{text} … ({len(names)} parameters)"
