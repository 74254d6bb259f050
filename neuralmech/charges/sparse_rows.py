"""Sparse matrices on any device: the same sums every time, and nothing dense."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from neuralmech.charges.step import Step
from neuralmech.charges.translation_plan import TranslationPlan


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


def written_out(plan: TranslationPlan) -> sparse.csr_array:
    """Generators over the flat vector: (charges, parameters)."""
    entries = plan.entries.tocoo()
    rows, columns, data = [entries.row], [entries.col], [entries.data]
    for (offset, outer, stride, inner, charge, *steps), c in zip(
        plan.pieces.tolist(), plan.coefficients.tolist(), strict=True
    ):
        a, j = np.arange(outer)[:, None], np.arange(inner)[None, :]
        columns.append((offset + stride * a + j).ravel())
        rows.append((charge + steps[0] * a + steps[1] * j).ravel())
        data.append(np.full(outer * inner, c))
    triple = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(triple, shape=plan.entries.shape)
