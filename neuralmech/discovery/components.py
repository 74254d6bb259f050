"""Components of a null space as parts of generators: which entries each moves, in which order, with which signs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.discovery.system import Ids
from neuralmech.symmetry.family import Axis, Term

Signature = tuple[tuple[str, int], ...]  # (parameter, sign) in the order of the model's parameters


def narrowed(ids: Ids) -> tuple[Axis, Ids]:
    """Unknowns of a parameter's entries: one for each row or column where a norm binds the rest together."""
    apart = [d for d, (n, step) in enumerate(zip(ids.shape, ids.strides, strict=True)) if n > 1 and step]
    if ids.ndim < 2 or ids.size in (0, ids.shape[0]) or any(d > 1 for d in apart) or len(apart) > 1:
        return "entries", ids
    if apart == [1]:
        return "columns", ids[0].reshape(ids.shape[1], -1)[:, 0]
    return "rows", ids.reshape(ids.shape[0], -1)[:, 0]


def part_of(name: str, axis: Axis, values: sparse.csr_array, width: int, groups: int = 1) -> Term:
    """What components move of a parameter, from `values` (elements of the axis, components); no charge is numbered."""
    coefficients = sparse.csr_array(values.T)
    coefficients.eliminate_zeros()
    return Term(name, axis, coefficients, np.zeros(0, dtype=np.int64), width, groups)


def ordered(
    parts: Sequence[Term], components: int
) -> tuple[Int64[NDArray, " components"], list[Signature], list[int], Float64[NDArray, " components"]]:
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
