"""Charges on any device: reductions in float64 of one run of equal shapes at a time, no loop over charges."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from neuralmech.symmetry.plan import NONE, LinearPlan, QuadraticPlan
from neuralmech.symmetry.step import LINEAR, QUADRATIC, Step


class SparseRows:
    """A sparse matrix applied by gathering: rows of similar length are padded and summed together.

    Deterministic on every device, and nothing dense is allocated.
    """

    def __init__(self, matrix: sparse.csr_array, device: torch.device) -> None:
        lengths = np.diff(matrix.indptr)
        buckets = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
        self._buckets: list[tuple[Tensor, Tensor, Tensor]] = []
        for bucket in np.unique(buckets):
            rows = np.flatnonzero(buckets == bucket)
            width = int(lengths[rows].max(initial=1))
            at = matrix.indptr[rows][:, None] + np.arange(width)[None, :]
            inside = np.arange(width)[None, :] < lengths[rows][:, None]
            at = np.where(inside, at, 0)
            parts = (
                rows,
                np.where(inside, matrix.indices[at], 0).astype(np.int64),
                np.where(inside, matrix.data[at], 0.0),
            )
            self._buckets.append(tuple(torch.as_tensor(p, device=device) for p in parts))  # type: ignore[arg-type]

    def apply(self, step: Step, name: str, out: Tensor) -> None:
        """out[r] = Σ_j matrix[r, j]·x[j] for one of the step's vectors x."""
        for rows, indices, weights in self._buckets:
            flat = indices.reshape(-1)
            values = step.vector(name, lambda v: v.index_select(0, flat))  # noqa: B023  (used at once)
            out.index_copy_(0, rows, (values.view_as(weights) * weights).sum(dim=-1))

    def combine(self, sums: Tensor, out: Tensor) -> None:
        """out[s, r] = Σ_j matrix[r, j]·sums[s, j]."""
        for rows, indices, weights in self._buckets:
            out.index_copy_(1, rows, (sums[:, indices] * weights).sum(dim=-1))  # (signals, rows, width) summed


class EagerForms:
    """All diagonal and translation charges of a step; the same interface and order as the compiled ones."""

    def __init__(
        self, quadratic: QuadraticPlan, linear: LinearPlan, signals: tuple[str, ...], device: torch.device
    ) -> None:
        self._signals, self._split = signals, quadratic.combine.shape[0]
        self._runs = _runs(quadratic.blocks, device)
        self._sums = torch.zeros(len(signals), quadratic.sums, dtype=torch.float64, device=device)
        self._combine = SparseRows(quadratic.combine, device)
        self._rows = SparseRows(_written(linear), device) if linear.charges else None

    def evaluate(self, step: Step, out: Tensor) -> None:
        """Write the forms to `out`, float64 (signals, charges)."""
        if self._split:
            for run in self._runs:
                self._reduce(step, run)
            self._combine.combine(self._sums, out[:, : self._split])
        if self._rows is not None:
            for i, signal in enumerate(self._signals):
                if signal in LINEAR:
                    self._rows.apply(step, LINEAR[signal], out[i, self._split :])
                else:
                    out[i, self._split :] = 0.0

    def _reduce(self, step: Step, run: Run) -> None:
        vectors: dict[str, Tensor] = {}
        for i, signal in enumerate(self._signals):
            for name in QUADRATIC[signal]:
                if name not in vectors:
                    vectors[name] = step.vector(name, lambda v: v[run.begin : run.end]).view(run.view)
            first, second = (vectors[name] for name in QUADRATIC[signal])
            products = first * second  # (parameters, groups, rows, columns, taps)
            if run.rows is not None:
                self._sums[i].index_copy_(0, run.rows, products.sum(dim=(3, 4)).view(-1))
            if run.columns is not None:
                self._sums[i].index_copy_(0, run.columns, products.sum(dim=(2, 4)).view(-1))


class Run:
    """Consecutive blocks of one shape whose sums are consecutive too."""

    def __init__(self, blocks: np.ndarray, device: torch.device) -> None:
        offset, groups, rows, inner, taps, row_place, column_place = (int(v) for v in blocks[0])
        size = groups * rows * inner * taps
        self.begin, self.end = offset, offset + len(blocks) * size
        self.view = (len(blocks), groups, rows, inner, taps)
        self.rows = None if row_place == NONE else _places(blocks[:, 5], groups * rows, device)
        self.columns = None if column_place == NONE else _places(blocks[:, 6], groups * inner, device)


def _places(firsts: np.ndarray, length: int, device: torch.device) -> Tensor:
    return torch.as_tensor((firsts[:, None] + np.arange(length)[None, :]).ravel(), device=device)


def _runs(blocks: np.ndarray, device: torch.device) -> list[Run]:
    if not len(blocks):
        return []
    sizes = np.prod(blocks[:, 1:5], axis=1)
    alike = (np.diff(blocks[:, 1:5], axis=0) == 0).all(axis=1) & (np.diff(blocks[:, 0]) == sizes[:-1])
    alike &= (np.diff((blocks[:, 5:] == NONE).astype(int), axis=0) == 0).all(axis=1)
    return [Run(part, device) for part in np.split(blocks, np.flatnonzero(~alike) + 1)]


def _written(plan: LinearPlan) -> sparse.csr_array:
    """Generators over the flat vector: (charges, parameters)."""
    entries = plan.entries.tocoo()
    rows, columns, data = [entries.row], [entries.col], [entries.data]
    for (offset, outer, stride, inner, charge), c in zip(plan.pieces.tolist(), plan.coefficients.tolist(), strict=True):
        at = (offset + stride * np.arange(outer)[:, None] + np.arange(inner)[None, :]).ravel()
        rows.append(charge + np.arange(at.size))
        columns.append(at)
        data.append(np.full(at.size, c))
    triple = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(triple, shape=plan.entries.shape)
