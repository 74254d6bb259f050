"""Charges by operations of torch, on any device: no loop over charges, and nobody waits for the device."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy import sparse
from torch import Tensor

from neuralmech.charges.plan import NONE, Plan, Rectangles, TranslationPlan, alike
from neuralmech.charges.step import FORMS, Step


class Reference:
    """All forms of all charges, one reduction for each run of equal shapes."""

    def __init__(self, plan: Plan, signals: Sequence[str], device: torch.device) -> None:
        self._forms, self._split = [FORMS[s] for s in signals], plan.quadratic.charges
        self._runs = [Alike(part, device) for part in alike(plan.quadratic.table, adjacent=True)]
        self._sums = torch.zeros(len(signals), plan.quadratic.sums, dtype=torch.float64, device=device)
        self._combine = SparseRows(plan.quadratic.combine, device)
        self._generators = SparseRows(written_out(plan.translation), device)

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write the forms to `out`."""
        for one in self._runs:
            self._reduce(step, one)
        self._combine.combine(self._sums, out[:, : self._split])
        for form, charges in zip(self._forms, out[:, self._split :], strict=True):
            if form.z is not None:
                self._generators.apply(step, form.z, charges)
            else:
                charges.zero_()

    def mover(self, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> None:
        """None: steps are taken by PyTorch's optimiser."""

    def follower(self, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> None:
        """None: what is read are flat vectors."""

    def _reduce(self, step: Step, alike: Alike) -> None:
        vectors: dict[str, Tensor] = {}
        for i, form in enumerate(self._forms):
            for name in (form.x, form.y):
                if name not in vectors:
                    vectors[name] = step.vector(name, lambda v: v[alike.begin : alike.end]).view(alike.view)
            products = vectors[form.x] * vectors[form.y]  # (rectangles, rows, columns, taps)
            if alike.rows is not None:
                self._sums[i].index_copy_(0, alike.rows, products.sum(dim=(2, 3)).view(-1))
            if alike.columns is not None:
                self._sums[i].index_copy_(0, alike.columns, products.sum(dim=(1, 3)).view(-1))


class Alike:
    """Consecutive rectangles of one shape."""

    def __init__(self, table: Rectangles, device: torch.device) -> None:
        first, count = table[0], len(table)
        rows, columns, taps = (int(first[name]) for name in ("rows", "columns", "taps"))
        self.begin = int(first["start"])
        self.end = self.begin + count * rows * columns
        self.view = (count, rows, columns // taps, taps)
        self.rows = _places(table["row_place"], rows, device)
        self.columns = _places(table["column_place"], columns // taps, device)


def _places(firsts: np.ndarray, length: int, device: torch.device) -> Tensor | None:
    if firsts[0] == NONE:
        return None
    return torch.as_tensor((firsts[:, None] + np.arange(length)[None, :]).ravel(), device=device)


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

    def apply(self, step: Step, name: str, out: Float64[Tensor, " rows"]) -> None:
        """out[r] = Σ_j matrix[r, j]·x[j] for one of the step's vectors x."""
        for rows, indices, weights in self._buckets:
            flat = indices.reshape(-1)
            values = step.vector(name, lambda v: v.index_select(0, flat))  # noqa: B023  (used at once)
            out.index_copy_(0, rows, (values.view_as(weights) * weights).sum(dim=-1))

    def combine(self, sums: Float64[Tensor, "signals columns"], out: Float64[Tensor, "signals rows"]) -> None:
        """out[s, r] = Σ_j matrix[r, j]·sums[s, j]."""
        for rows, indices, weights in self._buckets:
            out.index_copy_(1, rows, (sums[:, indices] * weights).sum(dim=-1))  # (signals, rows, width) summed


def written_out(plan: TranslationPlan) -> sparse.csr_array:
    """Generators over the flat vector: (charges, parameters)."""
    entries = plan.entries.tocoo()
    rows, columns, data = [entries.row], [entries.col], [entries.data]
    for piece in plan.pieces:
        i, j = np.arange(piece["rows"])[:, None], np.arange(piece["columns"])[None, :]
        columns.append((piece["start"] + piece["stride"] * i + j).ravel())
        rows.append((piece["charge"] + piece["row_step"] * i + piece["column_step"] * j).ravel())
        data.append(np.full(columns[-1].size, piece["weight"]))
    triple = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(triple, shape=plan.entries.shape)
