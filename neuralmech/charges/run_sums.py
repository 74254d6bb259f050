"""Diagonal charges by operations of torch, on any device: one reduction for each run of equal shapes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuralmech.charges.plan import NONE, QuadraticPlan
from neuralmech.charges.sparse_rows import SparseRows
from neuralmech.charges.step import QUADRATIC, Step


class RunSums:
    """Sums in float64 over rows and columns of weights, and the charges out of these."""

    def __init__(self, plan: QuadraticPlan, signals: tuple[str, ...], device: torch.device) -> None:
        self._signals, self._runs = signals, _runs(plan.blocks, device)
        self._sums = torch.zeros(len(signals), plan.sums, dtype=torch.float64, device=device)
        self._combine = SparseRows(plan.combine, device)

    def evaluate(self, step: Step, out: Tensor) -> None:
        """Write the signals to `out` (signals, charges)."""
        for run in self._runs:
            self._reduce(step, run)
        self._combine.combine(self._sums, out)

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
