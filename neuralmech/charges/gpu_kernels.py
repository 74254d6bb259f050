"""Sums of all tiles by one GPU kernel for each kind, in Triton."""

from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore
import triton.language as tl  # pyright: ignore
from jaxtyping import Float64, Int64
from torch import Tensor

from neuralmech.charges.gpu_tiles import COLUMNS
from neuralmech.charges.plan import FIELDS
from neuralmech.charges.step import Step

# Where the fields of a tile are, in numbers of 8 bytes from its first.
_START, _ROWS, _COLUMNS, _STRIDE, _ROW_PLACE, _COLUMN_PLACE, _COEFFICIENT = (
    tl.constexpr(FIELDS.index(name))
    for name in ("start", "rows", "columns", "stride", "row_place", "column_place", "coefficient")
)
_FIELDS, _AT_ONCE, _WIDTH = tl.constexpr(len(FIELDS)), tl.constexpr(8), tl.constexpr(COLUMNS)  # 8 rows of a tile


@triton.jit
def _sums(before, after, gradient, table, sums, apart):
    """Sums of θ², u², g² and θg over rows and columns of a tile, in float64, u being θ_k − θ_{k+1}.

    No two tiles write to the same place, so the order of additions is always the same.
    """
    tile = table + _FIELDS * tl.program_id(0)
    start, stride = tl.load(tile + _START), tl.load(tile + _STRIDE)
    rows, columns = tl.load(tile + _ROWS), tl.load(tile + _COLUMNS)
    row_place, column_place = tl.load(tile + _ROW_PLACE), tl.load(tile + _COLUMN_PLACE)
    j = tl.arange(0, _WIDTH)
    a0 = tl.zeros((_AT_ONCE, _WIDTH), dtype=tl.float64)
    a1, a2, a3 = a0, a0, a0
    rows_wanted = tl.where(row_place >= 0, rows, 0)
    for first in range(0, rows, _AT_ONCE):
        i = first + tl.arange(0, _AT_ONCE)
        inside = (i[:, None] < rows) & (j[None, :] < columns)
        at = start + i[:, None] * stride + j[None, :]
        t = tl.load(before + at, mask=inside, other=0.0).to(tl.float64)
        u = t - tl.load(after + at, mask=inside, other=0.0).to(tl.float64)
        g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float64)
        p0, p1, p2, p3 = t * t, u * u, g * g, t * g
        a0, a1, a2, a3 = a0 + p0, a1 + p1, a2 + p2, a3 + p3
        to, wanted = sums + row_place + i, i < rows_wanted
        tl.store(to, tl.sum(p0, axis=1), mask=wanted)
        tl.store(to + apart, tl.sum(p1, axis=1), mask=wanted)
        tl.store(to + 2 * apart, tl.sum(p2, axis=1), mask=wanted)
        tl.store(to + 3 * apart, tl.sum(p3, axis=1), mask=wanted)
    to, wanted = sums + column_place + j, j < tl.where(column_place >= 0, columns, 0)
    tl.store(to, tl.sum(a0, axis=0), mask=wanted)
    tl.store(to + apart, tl.sum(a1, axis=0), mask=wanted)
    tl.store(to + 2 * apart, tl.sum(a2, axis=0), mask=wanted)
    tl.store(to + 3 * apart, tl.sum(a3, axis=0), mask=wanted)


@triton.jit
def _weighed(before, after, gradient, coefficients, table, sums, apart):
    """Sums of θ, u and g over the columns of a tile, and over its rows, each times its coefficient."""
    tile = table + _FIELDS * tl.program_id(0)
    start, stride = tl.load(tile + _START), tl.load(tile + _STRIDE)
    rows, columns = tl.load(tile + _ROWS), tl.load(tile + _COLUMNS)
    row_place, column_place = tl.load(tile + _ROW_PLACE), tl.load(tile + _COLUMN_PLACE)
    coefficient = tl.load(tile + _COEFFICIENT)
    j = tl.arange(0, _WIDTH)
    a0 = tl.zeros((_AT_ONCE, _WIDTH), dtype=tl.float64)
    a1, a2 = a0, a0
    rows_wanted = tl.where(row_place >= 0, rows, 0)
    for first in range(0, rows, _AT_ONCE):
        i = first + tl.arange(0, _AT_ONCE)
        inside = (i[:, None] < rows) & (j[None, :] < columns)
        at = start + i[:, None] * stride + j[None, :]
        c = tl.load(coefficients + coefficient + i, mask=i < rows, other=0.0)[:, None]
        t = tl.load(before + at, mask=inside, other=0.0).to(tl.float64)
        u = t - tl.load(after + at, mask=inside, other=0.0).to(tl.float64)
        g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float64)
        a0, a1, a2 = a0 + c * t, a1 + c * u, a2 + c * g
        to, wanted = sums + row_place + i, i < rows_wanted
        tl.store(to, tl.sum(t, axis=1), mask=wanted)
        tl.store(to + apart, tl.sum(u, axis=1), mask=wanted)
        tl.store(to + 2 * apart, tl.sum(g, axis=1), mask=wanted)
    to, wanted = sums + column_place + j, j < tl.where(column_place >= 0, columns, 0)
    tl.store(to, tl.sum(a0, axis=0), mask=wanted)
    tl.store(to + apart, tl.sum(a1, axis=0), mask=wanted)
    tl.store(to + 2 * apart, tl.sum(a2, axis=0), mask=wanted)


def sum_tiles(step: Step, table: Int64[Tensor, "tiles fields"], sums: Float64[Tensor, "signals sums"]) -> None:
    """Write the sums of θ², (θ_k − θ_{k+1})², g² and θg of every tile to `sums` (4, sums); see `tiles`."""
    _launch(_sums, step[:3], table, sums)


def add_rows(
    step: Step,
    coefficients: Float64[Tensor, " rows"],
    table: Int64[Tensor, "tiles fields"],
    sums: Float64[Tensor, "signals sums"],
) -> None:
    """Write the sums of θ, θ_k − θ_{k+1} and g of every tile to `sums` (3, sums); see `translation_tiles`."""
    _launch(_weighed, (*step[:3], coefficients), table, sums)


def _launch(
    kernel: Any,
    vectors: tuple[Tensor, ...],
    table: Int64[Tensor, "tiles fields"],
    sums: Float64[Tensor, "signals sums"],
) -> None:
    """A program for each row of the table (tiles, fields)."""
    with torch.cuda.device_of(sums):  # Triton launches on the current device
        kernel[(len(table),)](*vectors, table, sums, sums.stride(0), enable_fp_fusion=True)
