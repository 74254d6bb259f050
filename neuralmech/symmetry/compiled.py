"""Charges on the CPU: every parameter is read once, and its row and column sums come out of that one pass."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from torch import Tensor

from neuralmech.symmetry.plan import LinearPlan, QuadraticPlan
from neuralmech.symmetry.step import LINEAR, QUADRATIC, Step

MAIN = ("value", "drive_update", "drive_gradient", "residual")
# Sums may be reordered for vector units; NaN and infinity keep their meaning.
REORDERED = {"reassoc", "contract", "nsz", "arcp"}


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    try:
        return numba.njit(fastmath=REORDERED, cache=True)(function)
    except RuntimeError:  # no folder to keep compiled code in
        return numba.njit(fastmath=REORDERED)(function)


@_compiled
def _fold(columns, taps, out):
    """Sum the kernel taps of each column."""
    for i in range(out.shape[0]):
        total = 0.0
        for tap in range(i * taps, (i + 1) * taps):
            total += columns[tap]
        out[i] = total


@_compiled
def _main_sums(before, after, gradient, rate, blocks, sums, columns):
    """Row and column sums of θ², u², g² and θg for every block; `columns` is scratch."""
    for k in range(blocks.shape[0]):
        offset, groups, rows, inner, taps, row_place, column_place = blocks[k]
        width = inner * taps
        for group in range(groups):
            if column_place >= 0:
                columns[:, :width] = 0.0
            for row in range(group * rows, (group + 1) * rows):
                start = offset + row * width
                a0 = a1 = a2 = a3 = 0.0
                x, y, z = before[start : start + width], after[start : start + width], gradient[start : start + width]
                if column_place >= 0:
                    for j in range(width):
                        t, g = np.float64(x[j]), np.float64(z[j])
                        u = t - np.float64(y[j])
                        p0, p1, p2, p3 = t * t, u * u, g * g, t * g
                        columns[0, j] += p0
                        columns[1, j] += p1
                        columns[2, j] += p2
                        columns[3, j] += p3
                        a0 += p0
                        a1 += p1
                        a2 += p2
                        a3 += p3
                else:
                    for j in range(width):
                        t, g = np.float64(x[j]), np.float64(z[j])
                        u = t - np.float64(y[j])
                        a0 += t * t
                        a1 += u * u
                        a2 += g * g
                        a3 += t * g
                if row_place >= 0:
                    sums[0, row_place + row] = a0
                    sums[1, row_place + row] = a1
                    sums[2, row_place + row] = a2
                    sums[3, row_place + row] = a3
            if column_place >= 0:
                place = column_place + group * inner
                for s in range(4):
                    _fold(columns[s], taps, sums[s, place : place + inner])
    sums[1] *= rate * rate


@_compiled
def _pair_sums(first, second, blocks, sums, columns):
    """Row and column sums of one product."""
    for k in range(blocks.shape[0]):
        offset, groups, rows, inner, taps, row_place, column_place = blocks[k]
        width = inner * taps
        for group in range(groups):
            columns[0, :width] = 0.0
            for row in range(group * rows, (group + 1) * rows):
                start = offset + row * width
                x, y = first[start : start + width], second[start : start + width]
                total = 0.0
                for j in range(width):
                    p = np.float64(x[j]) * np.float64(y[j])
                    columns[0, j] += p
                    total += p
                if row_place >= 0:
                    sums[row_place + row] = total
            if column_place >= 0:
                place = column_place + group * inner
                _fold(columns[0], taps, sums[place : place + inner])


@_compiled
def _combine(indptr, indices, data, sums, out):
    for charge in range(indptr.shape[0] - 1):
        for s in range(sums.shape[0]):
            total = 0.0
            for k in range(indptr[charge], indptr[charge + 1]):
                total += data[k] * sums[s, indices[k]]
            out[s, charge] = total


@_compiled
def _main_pieces(before, after, gradient, rate, pieces, coefficients, out):
    """⟨a, θ⟩, ⟨a, u⟩ and ⟨a, g⟩ of every charge."""
    out[:] = 0.0
    for k in range(pieces.shape[0]):
        offset, outer, stride, inner, charge = pieces[k]
        c = coefficients[k]
        for a in range(outer):
            start = offset + a * stride
            x, y, z = before[start : start + inner], after[start : start + inner], gradient[start : start + inner]
            for j in range(inner):
                t = np.float64(x[j])
                out[0, charge + j] += c * t
                out[1, charge + j] += c * (t - np.float64(y[j])) * rate
                out[2, charge + j] += c * np.float64(z[j])
            charge += inner
    out[3] = out[2]


@_compiled
def _pieces(vector, pieces, coefficients, out):
    out[:] = 0.0
    for k in range(pieces.shape[0]):
        offset, outer, stride, inner, charge = pieces[k]
        for a in range(outer):
            start = offset + a * stride
            for j in range(inner):
                out[charge + j] += coefficients[k] * np.float64(vector[start + j])
            charge += inner


class CompiledForms:
    """All diagonal and translation charges of a step, on the CPU.

    `signals` begin with value, drive_update, drive_gradient and residual. Charges are in the plans' order:
    diagonal ones first.
    """

    def __init__(self, quadratic: QuadraticPlan, linear: LinearPlan, signals: tuple[str, ...]) -> None:
        assert signals[: len(MAIN)] == MAIN
        self._signals, self._q, self._l = signals, quadratic, linear
        width = int((quadratic.blocks[:, 3] * quadratic.blocks[:, 4]).max(initial=1))
        self._sums = np.zeros((len(signals), quadratic.sums))
        self._columns = np.zeros((len(MAIN), width))
        self._split = quadratic.combine.shape[0]

    def evaluate(self, step: Step, out: Tensor) -> None:
        """Write the forms to `out`, float64 (signals, charges)."""
        target = out.numpy()
        vectors = tuple(v.detach().numpy() for v in (step.before, step.after, step.gradient))
        q, p, split = self._q, self._l, self._split
        if split:
            _main_sums(*vectors, float(step.rate), q.blocks, self._sums, self._columns)
            for i, signal in enumerate(self._signals[len(MAIN) :], len(MAIN)):
                pair = tuple(step.vector(name).numpy() for name in QUADRATIC[signal])
                _pair_sums(*pair, q.blocks, self._sums[i], self._columns)
            _combine(q.combine.indptr, q.combine.indices, q.combine.data, self._sums, target[:, :split])
        if p.charges:
            _main_pieces(*vectors, float(step.rate), p.pieces, p.coefficients, target[:, split:])
            for i, signal in enumerate(self._signals[len(MAIN) :], len(MAIN)):
                if signal in LINEAR:
                    _pieces(step.vector(LINEAR[signal]).numpy(), p.pieces, p.coefficients, target[i, split:])
                else:
                    target[i, split:] = 0.0  # a charge linear in the parameters has no noise drive
