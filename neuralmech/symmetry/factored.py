"""Use generators as they are stored, by rows and columns of weights, without writing the matrix out.

AlexNet's generators have more than 10⁸ entries; their terms hold some thousands of numbers.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.symmetry.family import Family, Term, axis_entries, generator_matrix, offsets

Shapes = Mapping[str, Sequence[int]]
Vector = NDArray[np.float64]


def inner_products(
    family: Family, shapes: Shapes, vector: Float64[NDArray, " parameters"]
) -> Float64[NDArray, " charges"]:
    """Return Σ_j a_j·vector_j for every charge's generator a.

    With vector = g this is ⟨g, a⟩ of a translation; with vector = θ⊙g it is ⟨g, M θ⟩ of a diagonal symmetry.
    """
    starts = offsets(shapes)
    out = np.zeros(len(family))
    for term in family.terms:
        rows = np.flatnonzero(np.diff(term.coefficients.indptr))
        block = _block(vector, starts[term.parameter], term.shape(shapes))
        values = term.coefficients[rows] @ _by_axis(block, term)  # (components, width)
        np.add.at(out, term.first[rows][:, None] + np.arange(term.width), values)
    return out


def squared_lengths(
    family: Family, shapes: Shapes, weights: Float64[NDArray, " parameters"]
) -> Float64[NDArray, " charges"]:
    """Return Σ_j a_j²·weights_j for every charge's generator a.

    With weights = 1 this is |a|²; with weights = θ² it is |M θ|².
    """
    squares = tuple(dataclasses.replace(t, coefficients=t.coefficients.power(2)) for t in family.terms)
    out = inner_products(dataclasses.replace(family, terms=squares), shapes, weights)
    starts = offsets(shapes)
    for name, terms in _by_parameter(family.terms).items():
        block = _block(weights, starts[name], shapes[name]).ravel()
        for a, b in itertools.combinations(terms, 2):  # rows and columns of one weight in one charge: (r − c)²
            charges = np.intersect1d(_charges(a), _charges(b))
            if charges.size:
                both = _written(a, charges, shapes[name]).multiply(_written(b, charges, shapes[name]))
                out[charges] += 2 * (sparse.csr_array(both) @ block)
    return np.maximum(out, 0)


def generator(family: Family, shapes: Shapes, charge: int) -> Float64[NDArray, " parameters"]:
    """Write one charge's generator out: a of a translation, the diagonal of M otherwise."""
    starts = offsets(shapes)
    out = np.zeros(sum(math.prod(s) for s in shapes.values()))
    for term in family.terms:
        for component in np.flatnonzero((term.first <= charge) & (charge < term.first + term.width)):
            row = term.coefficients[[component]].tocoo()
            if row.nnz:
                entries = starts[term.parameter] + axis_entries(term.axis, term.groups, term.shape(shapes))[row.col]
                chosen = entries[:, [charge - term.first[component]]] if term.width > 1 else entries
                out[chosen] += row.data[:, None]
    return out


def covered_entries(families: Iterable[Family], shapes: Shapes) -> Iterator[tuple[str, Bool[NDArray, ...]]]:
    """Parameter and which of its entries at least one charge moves, flattened; without the parameters of no charge.

    One parameter at a time, one bool for each of its entries: VGG's largest layer has 10⁸.
    """
    terms: dict[str, list[Term]] = {}
    first = 0
    for family in families:
        for term in family.terms:
            moved = dataclasses.replace(term, first=term.first + first)  # charges numbered through all families
            terms.setdefault(term.parameter, []).append(moved)
        first += len(family)
    for name, mine in terms.items():
        yield name, _covered(mine, mine[0].shape(shapes), first)


def _covered(terms: list[Term], shape: Sequence[int], charges: int) -> NDArray[np.bool_]:
    """Entry (o, i) stands still where row o and column i cancel in every charge: r_o = −c_i as vectors of charges."""
    covered = np.zeros(math.prod(shape), dtype=bool)
    of_axis = {axis: [t for t in terms if t.axis == axis] for axis in ("entries", "rows", "columns")}
    if of_axis["rows"] or of_axis["columns"]:
        groups = max((t.groups for t in of_axis["columns"]), default=1)
        width = shape[1] if len(shape) > 1 else 1
        labels: dict[bytes, int] = {}
        rows = _labels(of_axis["rows"], shape[0], charges, 1, labels)
        columns = _labels(of_axis["columns"], groups * width, charges, -1, labels)
        grid = covered.reshape(groups, shape[0] // groups, width, -1)
        np.not_equal(rows.reshape(groups, -1, 1, 1), columns.reshape(groups, 1, width, 1), out=grid)
    if of_axis["entries"]:
        covered[_summed(of_axis["entries"], covered.size, charges).indices] = True
    return covered


def _labels(terms: list[Term], length: int, charges: int, sign: int, labels: dict[bytes, int]) -> NDArray[np.int32]:
    """Number for every element of an axis: the same where sign × its coefficients in all charges are the same.

    0 where there are none; `labels` are the other numbers so far.
    """
    out = np.zeros(length, dtype=np.int32)
    if terms:
        columns = sparse.csc_array(sign * _summed(terms, length, charges))
        columns.sort_indices()
        for element in np.flatnonzero(np.diff(columns.indptr)):
            part = slice(columns.indptr[element], columns.indptr[element + 1])
            key = columns.indices[part].astype(np.int64).tobytes() + columns.data[part].tobytes()
            out[element] = labels.setdefault(key, len(labels) + 1)
    return out


def _summed(terms: list[Term], length: int, charges: int) -> sparse.csr_array:
    """Coefficients of all terms of one axis: (charges, length), without zeros."""
    parts = [(term.first, term.coefficients.tocoo()) for term in terms]
    rows = np.concatenate([first[part.row] for first, part in parts])
    columns = np.concatenate([part.col for _, part in parts])
    data = np.concatenate([part.data for _, part in parts])
    total = sparse.csr_array((data, (rows, columns)), shape=(charges, length))
    total.sum_duplicates()
    total.eliminate_zeros()
    return total


def _by_axis(block: Vector, term: Term) -> Vector:
    """Entries under each element of a term's axis, summed if they are one charge's: (axis, width)."""
    if term.axis == "entries":
        return block.reshape(-1, 1)
    if term.axis == "rows":
        grid = block.reshape(block.shape[0], -1)
        return grid if term.width > 1 else grid.sum(axis=1, keepdims=True)
    grid = block.reshape(term.groups, block.shape[0] // term.groups, block.shape[1], -1)
    if term.width == 1:
        return grid.sum(axis=(1, 3)).reshape(-1, 1)
    return grid.transpose(0, 2, 1, 3).reshape(term.groups * block.shape[1], -1)


def _block(vector: Vector, start: int, shape: Sequence[int]) -> Vector:
    return vector[start : start + math.prod(shape)].reshape(tuple(shape))


def _by_parameter(terms: Iterable[Term]) -> dict[str, list[Term]]:
    found: dict[str, list[Term]] = {}
    for term in terms:
        found.setdefault(term.parameter, []).append(term)
    return found


def _charges(term: Term) -> NDArray[np.int64]:
    rows = np.flatnonzero(np.diff(term.coefficients.indptr))
    return (term.first[rows][:, None] + np.arange(term.width)).ravel()


def _written(term: Term, charges: NDArray[np.int64], shape: Sequence[int]) -> sparse.csr_array:
    """Part of a diagonal generator, written out for some charges and one parameter: (charges, entries)."""
    where = {int(charge): component for component, charge in enumerate(term.first)}
    rows = term.coefficients[[where[int(charge)] for charge in charges]]
    alone = dataclasses.replace(term, coefficients=rows, first=np.arange(charges.size))
    family = Family("rescale", (alone,), ("",) * charges.size, np.arange(charges.size))
    return generator_matrix(family, {term.parameter: shape})
