"""Charges on a GPU: sums over tiles by one kernel for all weights, which reads θ_k, θ_{k+1} and g once."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from neuralmech.charges.plan import Ints, QuadraticPlan
from neuralmech.charges.run_sums import RunSums
from neuralmech.charges.sparse_rows import SparseRows, written_out
from neuralmech.charges.step import MAIN, TRANSLATION, Step
from neuralmech.charges.tiles import tiles, translation_tiles
from neuralmech.charges.translation_plan import TranslationPlan, whole_rows
from neuralmech.symmetry.layout import Layout


class TileSums:
    """The signals `MAIN` of diagonal charges."""

    def __init__(self, plan: QuadraticPlan, size: int, device: torch.device) -> None:
        cut = tiles(plan, size)
        self._table = torch.as_tensor(cut.table, device=device)
        self._sums = torch.zeros(len(MAIN), cut.sums, dtype=torch.float64, device=device)
        self._combine = SparseRows(cut.combine, device)

    def evaluate(self, step: Step, out: Tensor) -> None:
        """Write the signals to `out` (4, charges)."""
        from neuralmech.charges.tile_kernels import sum_tiles

        sum_tiles(step.before, step.after, step.gradient, self._table, self._sums)
        self._combine.combine(self._sums, out)
        out[MAIN.index("drive_update")].mul_(step.rate).mul_(step.rate)


class TranslationSums:
    """The signals `MAIN` of translation charges: rows and columns are added up by a kernel, single entries gathered."""

    def __init__(self, plan: TranslationPlan, blocks: Ints, layout: Layout, device: torch.device) -> None:
        translation = translation_tiles(whole_rows(plan, blocks, 0, layout), layout.size)
        cut, rest = translation.tiles, written_out(translation.rest).tocoo()
        places, columns = np.unique(rest.col, return_inverse=True)
        gathered = sparse.csr_array((rest.data, (rest.row, columns)), shape=(plan.charges, len(places)))
        self._combine = SparseRows(sparse.csr_array(sparse.hstack([cut.combine, gathered])), device)
        self._table = torch.as_tensor(cut.table, device=device)
        self._coefficients = torch.as_tensor(translation.coefficients, device=device)
        self._places = torch.as_tensor(places.astype(np.int64), device=device)
        self._parts = torch.zeros(3, cut.sums + len(places), dtype=torch.float64, device=device)
        self._sums, self._gathered = self._parts[:, : cut.sums], self._parts[:, cut.sums :]

    def evaluate(self, step: Step, out: Tensor) -> None:
        """Write the signals to `out` (4, charges)."""
        from neuralmech.charges.tile_kernels import add_rows

        if len(self._table):
            add_rows(step.before, step.after, step.gradient, self._coefficients, self._table, self._sums)
        for row, vector in enumerate((step.before, step.after, step.gradient)):
            self._gathered[row].copy_(vector.index_select(0, self._places))
        torch.sub(self._gathered[0], self._gathered[1], out=self._gathered[1])
        self._combine.combine(self._parts, out[:3])
        out[1].mul_(step.rate)
        out[3].copy_(out[2])


@functools.cache
def sums_tiles(device: torch.device) -> bool:
    """Whether Triton's kernels can be compiled and give the sums that operations of torch give, on this device.

    They need a C compiler, and a GPU that Triton knows.
    """
    try:
        found = _example(device, tiled=True)
    except Exception as error:  # noqa: BLE001  (whatever a compiler or a driver may raise)
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
    else:
        if torch.allclose(found, _example(device, tiled=False), rtol=1e-12, atol=1e-12):
            return True
        reason = "they compute something else"
    warnings.warn(f"charges are summed by many kernels, because Triton's do not work here: {reason}", stacklevel=2)
    return False


def _example(device: torch.device, *, tiled: bool) -> Tensor:
    """Rows, columns and taps of two groups, and of the same weight translations of all kinds, at random vectors."""
    rows, channels = 70, 100
    layout = Layout.by_shape({"weight": (rows, 3 * channels), "bias": (rows,)})
    start, width = layout.offsets["weight"], 3 * channels
    sums = rows + 2 * channels
    plan = QuadraticPlan(
        np.array([[start, 2, rows // 2, channels, 3, 0, rows]]), sums, sparse.eye_array(sums, format="csr")
    )
    pieces = [(start, rows, width, width, 0, 0, 1), (start, rows, width, width, width, 1, 0)]
    bias = layout.offsets["bias"] + np.arange(rows)
    single = (np.full(rows, 2.0), (width + np.arange(rows), bias))
    translation = TranslationPlan(
        np.array(pieces), np.array([0.5, -1.0]), sparse.csr_array(single, shape=(width + rows, layout.size))
    )
    generator = torch.Generator().manual_seed(0)
    vectors = (torch.randn(layout.size, generator=generator).to(device) for _ in range(3))
    step, out = (
        Step(*vectors, rate=10.0),
        torch.zeros(4, sums + translation.charges, dtype=torch.float64, device=device),
    )
    if tiled:
        TileSums(plan, layout.size, device).evaluate(step, out[:, :sums])
        TranslationSums(translation, plan.blocks, layout, device).evaluate(step, out[:, sums:])
        return out
    RunSums(plan, MAIN, device).evaluate(step, out[:, :sums])
    every = SparseRows(written_out(translation), device)
    for signal, charges in zip(MAIN, out[:, sums:], strict=True):
        every.apply(step, TRANSLATION[signal], charges)
    return out
