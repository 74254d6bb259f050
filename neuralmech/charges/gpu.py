"""Charges on a GPU: sums over tiles by one kernel for all weights, which reads θ_k, θ_{k+1} and g once."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Collection, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy import sparse
from torch import Tensor

from neuralmech.charges.gpu_tiles import tiles, translation_tiles
from neuralmech.charges.plan import (
    FIELDS,
    Plan,
    QuadraticPlan,
    Rectangles,
    TranslationPlan,
    rectangles,
    together,
    whole_rows,
)
from neuralmech.charges.reference import Reference, SparseRows, written_out
from neuralmech.charges.step import MAIN, Step
from neuralmech.symmetry.layout import Layout


class Gpu:
    """The signals `MAIN`, with which `signals` begin, by Triton's kernels; what is more by operations of torch."""

    def __init__(self, plan: Plan, signals: Sequence[str], device: torch.device) -> None:
        self._split, rest = plan.quadratic.charges, signals[len(MAIN) :]
        self._tiles = TileSums(plan, device) if plan.quadratic.charges else None
        self._added = TranslationSums(plan, device) if plan.translation.charges else None
        self._rest = Reference(plan, rest, device) if rest else None

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write the forms to `out`."""
        main = out[: len(MAIN)]
        if self._tiles:
            self._tiles.evaluate(step, main[:, : self._split])
        if self._added:
            self._added.evaluate(step, main[:, self._split :])
        if self._rest:
            self._rest.evaluate(step, out[len(MAIN) :])

    def mover(self, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> None:
        """None: steps are taken by PyTorch's optimiser."""

    def follower(self, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> None:
        """None: what is read are flat vectors."""


class TileSums:
    """The signals `MAIN` of diagonal charges."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        cut = tiles(plan.quadratic, plan.layout.size)
        self._table = _on(device, cut.table)
        self._sums = torch.zeros(len(MAIN), cut.sums, dtype=torch.float64, device=device)
        self._combine = SparseRows(cut.combine, device)

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write the signals to the four rows of `out`."""
        from neuralmech.charges.gpu_kernels import sum_tiles

        sum_tiles(step, self._table, self._sums)
        self._combine.combine(self._sums, out)
        out[MAIN.index("drive_update")].mul_(step.rate).mul_(step.rate)


class TranslationSums:
    """The signals `MAIN` of translation charges: rows and columns are added up by a kernel, single entries gathered."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        translation = translation_tiles(whole_rows(plan, 0), plan.layout.size)
        cut, rest = translation.tiles, written_out(translation.rest).tocoo()
        places, columns = np.unique(rest.col, return_inverse=True)
        gathered = sparse.csr_array((rest.data, (rest.row, columns)), shape=(plan.translation.charges, len(places)))
        self._combine = SparseRows(sparse.csr_array(sparse.hstack([cut.combine, gathered])), device)
        self._table = _on(device, cut.table)
        self._coefficients = torch.as_tensor(translation.coefficients, device=device)
        self._places = torch.as_tensor(places.astype(np.int64), device=device)
        self._parts = torch.zeros(3, cut.sums + len(places), dtype=torch.float64, device=device)
        self._sums, self._gathered = self._parts[:, : cut.sums], self._parts[:, cut.sums :]

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write the signals to the four rows of `out`."""
        from neuralmech.charges.gpu_kernels import add_rows

        if len(self._table):
            add_rows(step, self._coefficients, self._table, self._sums)
        for row, vector in enumerate((step.before, step.after, step.gradient)):
            self._gathered[row].copy_(vector.index_select(0, self._places))
        torch.sub(self._gathered[0], self._gathered[1], out=self._gathered[1])
        self._combine.combine(self._parts, out[:3])
        out[1].mul_(step.rate)
        out[3].copy_(out[2])


def _on(device: torch.device, table: Rectangles) -> Tensor:
    """A table for kernels: (rectangles, fields)."""
    return torch.as_tensor(table.view(np.int64).reshape(len(table), len(FIELDS)), device=device)


@functools.cache
def sums_tiles(device: torch.device) -> bool:
    """Whether Triton's kernels can be compiled and give the sums that operations of torch give, on this device.

    They need a C compiler, and a GPU that Triton knows.
    """
    plan = _example()
    vectors = torch.randn(3, plan.layout.size, generator=torch.Generator().manual_seed(0)).to(device)
    step = Step(*vectors, rate=10.0)
    found, wanted = torch.zeros(2, len(MAIN), plan.charges, dtype=torch.float64, device=device)
    try:
        Gpu(plan, MAIN, device).evaluate(step, found)
    except Exception as error:  # noqa: BLE001  (whatever a compiler or a driver may raise)
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
    else:
        Reference(plan, MAIN, device).evaluate(step, wanted)
        if torch.allclose(found, wanted, rtol=1e-12, atol=1e-12):
            return True
        reason = "they compute something else"
    warnings.warn(f"charges are summed by many kernels, because Triton's do not work here: {reason}", stacklevel=2)
    return False


def _example() -> Plan:
    """Rows, columns and taps of two groups, and of the same weight translations of all kinds."""
    rows, channels = 70, 100
    layout = Layout.by_shape({"weight": (rows, 3 * channels), "bias": (rows,)})
    start, width, half = layout.offsets["weight"], 3 * channels, rows // 2
    sums, group, number = rows + 2 * channels, np.arange(2), list(layout.shapes).index("weight")
    summed = rectangles(
        **{"start": start + group * half * width, "rows": half, "columns": width, "taps": 3, "parameter": number},
        **{"row_place": group * half, "column_place": rows + group * channels},
    )
    weight = {"start": start, "rows": rows, "columns": width, "parameter": number}
    pieces = together([
        rectangles(**weight, charge=0, column_step=1, weight=0.5),
        rectangles(**weight, charge=width, row_step=1, weight=-1.0),
    ])  # fmt: skip
    bias = layout.offsets["bias"] + np.arange(rows)
    single = (np.full(rows, 2.0), (width + np.arange(rows), bias))
    entries = sparse.csr_array(single, shape=(width + rows, layout.size))
    quadratic = QuadraticPlan(summed, sums, sparse.eye_array(sums, format="csr"))
    return Plan(quadratic, TranslationPlan(pieces, entries), layout)
