"""Evaluate all charges of a model at once: a handful of reductions, no loop over charges.

Diagonal charges need only the row and column sums of elementwise products; sparse rows of coefficients then
combine the sums. Everything accumulates in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from neuralmech.symmetry.group import Family, generator_matrix


@dataclass(frozen=True)
class Layout:
    """Where parameters lie in a flat buffer: name → offset and shape. Equal shapes lie together."""

    offsets: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    size: int

    @staticmethod
    def by_shape(shapes: Mapping[str, Sequence[int]]) -> Layout:
        """Lay parameters of equal shape side by side, so that one reduction serves them all."""
        order = sorted(shapes, key=lambda name: tuple(shapes[name]))  # stable: model order within a shape
        starts = np.cumsum([0, *(math.prod(shapes[name]) for name in order)]).tolist()
        return Layout(dict(zip(order, starts[:-1], strict=True)), {n: tuple(shapes[n]) for n in order}, int(starts[-1]))


class SparseRows:
    """A sparse matrix applied on the device by gathering: rows of similar length are padded and summed together.

    Deterministic on every device, and without allocation of anything dense.
    """

    def __init__(self, matrix: sparse.csr_array, device: torch.device) -> None:
        self.rows = matrix.shape[0]
        lengths = np.diff(matrix.indptr)
        buckets = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
        self._buckets: list[tuple[Tensor, Tensor, Tensor]] = []
        for bucket in np.unique(buckets):
            rows = np.flatnonzero(buckets == bucket)
            width = int(lengths[rows].max(initial=1))
            at = matrix.indptr[rows][:, None] + np.arange(width)[None, :]
            inside = np.arange(width)[None, :] < lengths[rows][:, None]
            at = np.where(inside, at, 0)
            indices = np.where(inside, matrix.indices[at], 0)
            weights = np.where(inside, matrix.data[at], 0.0)
            self._buckets.append(
                (
                    torch.as_tensor(rows, device=device),
                    torch.as_tensor(indices.astype(np.int64), device=device),
                    torch.as_tensor(weights, device=device),
                )
            )

    def apply(self, values: Tensor, out: Tensor) -> None:
        """out[s, r] = Σ_j matrix[r, j]·values[s, j]."""
        for rows, indices, weights in self._buckets:
            out.index_copy_(1, rows, (values[:, indices] * weights).sum(dim=-1))  # (signals, rows, width) summed


class DiagonalForms:
    """xᵀSy for all charges of a scale or rescale family, from elementwise products x⊙y."""

    def __init__(self, family: Family, layout: Layout, device: torch.device) -> None:
        needed: dict[tuple[str, tuple[int, ...], int], set[str]] = {}
        for term in family.terms:
            key = (term.axis, layout.shapes[term.parameter], term.groups)
            needed.setdefault(key, set()).add(term.parameter)
        self._reductions: list[tuple[int, int, int, int, tuple[int, ...], tuple[int, ...]]] = []
        places: dict[tuple[str, str], int] = {}
        size = 0
        for (axis, shape, groups), names in needed.items():
            for run in _runs(sorted(names, key=lambda n: layout.offsets[n]), layout):
                view, dims, length = _reduction(axis, shape, groups)
                begin = layout.offsets[run[0]]
                self._reductions.append(
                    (begin, begin + len(run) * math.prod(shape), size, len(run) * length, view, dims)
                )
                for i, name in enumerate(run):
                    places[axis, name] = size + i * length
                size += len(run) * length
        self._sums_size = size
        self._combine = SparseRows(_over_sums(family, places, size), device)
        self._sums: Tensor | None = None

    def evaluate(self, products: Tensor, out: Tensor) -> None:
        """Write the charges' forms: `products` (signals, parameters) → `out` (signals, charges), float64."""
        signals = products.shape[0]
        if self._sums is None or self._sums.shape[0] != signals:
            self._sums = products.new_empty(signals, self._sums_size)
        for begin, end, place, length, view, dims in self._reductions:
            block = products[:, begin:end].view(signals, -1, *view)
            target = self._sums[:, place : place + length]
            if dims:
                target.copy_(block.sum(dim=dims).view(signals, length))
            else:
                target.copy_(products[:, begin:end])
        self._combine.apply(self._sums, out)


class LinearForms:
    """⟨a, x⟩ for all charges of a translation family."""

    def __init__(self, family: Family, layout: Layout, device: torch.device) -> None:
        matrix = generator_matrix(family, layout.shapes)  # over the layout's order
        self._combine = SparseRows(matrix, device)

    def evaluate(self, vectors: Tensor, out: Tensor) -> None:
        """Write the charges' forms: `vectors` (signals, parameters) → `out` (signals, charges), float64."""
        self._combine.apply(vectors, out)


def _runs(names: list[str], layout: Layout) -> list[list[str]]:
    """Split names of one shape into runs that are contiguous in the layout."""
    runs: list[list[str]] = []
    for name in names:
        size = math.prod(layout.shapes[name])
        if runs and layout.offsets[runs[-1][-1]] + size == layout.offsets[name]:
            runs[-1].append(name)
        else:
            runs.append([name])
    return runs


def _reduction(axis: str, shape: tuple[int, ...], groups: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """View of one parameter, the dims (of the (signals, run, *view) block) to sum over, and the sums' number."""
    size = math.prod(shape)
    if axis == "entries":
        return (size,), (), size
    if axis == "rows":
        return (shape[0], size // shape[0]), (-1,), shape[0]
    inner = size // (shape[0] * shape[1])
    return (groups, shape[0] // groups, shape[1], inner), (-3, -1), groups * shape[1]


def _over_sums(family: Family, places: Mapping[tuple[str, str], int], size: int) -> sparse.csr_array:
    rows: list[NDArray] = []
    columns: list[NDArray] = []
    data: list[NDArray] = []
    for term in family.terms:
        part = term.coefficients.tocoo()
        rows.append(term.first[part.row])
        columns.append(places[term.axis, term.parameter] + part.col)
        data.append(part.data)
    triple = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(triple, shape=(len(family), size))
