"""What the compiled pass does to a strip of parameters: SGD's update, and the sums that charges are made of."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from neuralmech.symmetry.jit import CONTRACTED, EXACT, REORDERED, jit

COLUMNS = 7  # of θ², (ηu)², g², θg, and with coefficients θ, ηu, g


@intrinsic
def _pointer(typingctx: Any, like: Any, address: Any) -> Any:
    """The address as a pointer to numbers of the type that `like` has."""
    signature = types.CPointer(like.dtype)(like, address)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[1], context.get_value_type(signature.return_type))

    return signature, generate


@jit(EXACT)
def _plus(a, b, c):
    """a·b + c, rounded twice."""
    return a * b + c


@jit(CONTRACTED)
def _move(x, z, m, old, lr, momentum, decay):
    """Update some entries and keep what they were; operations and their order are those of PyTorch's fused SGD."""
    if momentum == 0:
        for j in range(x.size):
            t = x[j]
            old[j] = t
            x[j] = t + (t * decay + z[j]) * (-lr)
    else:
        for j in range(x.size):
            t = x[j]
            old[j] = t
            b = _plus(m[j], momentum, t * decay + z[j])
            m[j] = b
            x[j] = t + b * (-lr)


@jit(CONTRACTED)
def _only_move(x, z, m, lr, momentum, decay):
    """The same, of which nothing is kept."""
    if momentum == 0:
        for j in range(x.size):
            x[j] += (x[j] * decay + z[j]) * (-lr)
    else:
        for j in range(x.size):
            b = _plus(m[j], momentum, x[j] * decay + z[j])
            m[j] = b
            x[j] += b * (-lr)


@jit(REORDERED)
def _row(old, y, z, row, sums, place):
    """Sums of θ², (ηu)², g² and θg over a row: `old` before and y after the step."""
    a0 = a1 = a2 = a3 = 0.0
    for j in range(y.shape[1]):
        t, g = np.float64(old[row, j]), np.float64(z[row, j])
        u = t - np.float64(y[row, j])
        a0 += t * t
        a1 += u * u
        a2 += g * g
        a3 += t * g
    _put(sums, place, a0, a1, a2, a3)


@jit(REORDERED)
def _row_and_columns(old, y, z, row, sums, place, columns):
    """The same, and added to the columns."""
    a0 = a1 = a2 = a3 = 0.0
    for j in range(y.shape[1]):
        t, g = np.float64(old[row, j]), np.float64(z[row, j])
        u = t - np.float64(y[row, j])
        p0, p1, p2, p3 = t * t, u * u, g * g, t * g
        columns[0, j] += p0
        columns[1, j] += p1
        columns[2, j] += p2
        columns[3, j] += p3
        a0 += p0
        a1 += p1
        a2 += p2
        a3 += p3
    _put(sums, place, a0, a1, a2, a3)


@jit(REORDERED)
def _rows_and_columns(old, y, z, row, sums, place, columns):
    """The same for two rows: the columns, which cost most, are touched once."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
    for j in range(y.shape[1]):
        t, g = np.float64(old[row, j]), np.float64(z[row, j])
        u = t - np.float64(y[row, j])
        p0, p1, p2, p3 = t * t, u * u, g * g, t * g
        t, g = np.float64(old[row + 1, j]), np.float64(z[row + 1, j])
        u = t - np.float64(y[row + 1, j])
        q0, q1, q2, q3 = t * t, u * u, g * g, t * g
        columns[0, j] += p0 + q0
        columns[1, j] += p1 + q1
        columns[2, j] += p2 + q2
        columns[3, j] += p3 + q3
        a0 += p0
        a1 += p1
        a2 += p2
        a3 += p3
        b0 += q0
        b1 += q1
        b2 += q2
        b3 += q3
    _put(sums, place, a0, a1, a2, a3)
    _put(sums, place + 1 if place >= 0 else place, b0, b1, b2, b3)


@jit(REORDERED)
def _put(sums, place, a0, a1, a2, a3):
    if place >= 0:
        sums[0, place] = a0
        sums[1, place] = a1
        sums[2, place] = a2
        sums[3, place] = a3


@jit(REORDERED)
def _entries(old, y, z, sums, place):
    """The same products of rows of one entry each."""
    for j in range(y.size):
        t, g = np.float64(old[j]), np.float64(z[j])
        u = t - np.float64(y[j])
        sums[0, place + j] = t * t
        sums[1, place + j] = u * u
        sums[2, place + j] = g * g
        sums[3, place + j] = t * g


@jit(REORDERED)
def sum_rows(old, y, z, row_place, has_columns, sums, columns):
    """The same for all rows of a matrix, whose row sums begin at `row_place` (−1: not wanted)."""
    pairs = y.shape[0] // 2 if has_columns else 0
    for pair in range(pairs):
        row = 2 * pair
        _rows_and_columns(old, y, z, row, sums, row_place + row if row_place >= 0 else -1, columns)
    for row in range(2 * pairs, y.shape[0]):
        place = row_place + row if row_place >= 0 else -1
        if has_columns:
            _row_and_columns(old, y, z, row, sums, place, columns)
        else:
            _row(old, y, z, row, sums, place)


@jit(REORDERED)
def _add_rows(old, y, z, coefficients, columns):
    """Sums of θ, ηu and g over rows, each times its coefficient."""
    for row in range(y.shape[0]):
        c = coefficients[row]
        for j in range(y.shape[1]):
            t = np.float64(old[row, j])
            columns[4, j] += c * t
            columns[5, j] += c * (t - np.float64(y[row, j]))
            columns[6, j] += c * np.float64(z[row, j])


@jit(REORDERED)
def fold(columns, taps, out):
    """Sum the kernel taps of each column."""
    for i in range(out.shape[0]):
        total = 0.0
        for tap in range(i * taps, (i + 1) * taps):
            total += columns[tap]
        out[i] = total


@jit(CONTRACTED)
def _measured_rows(x, z, m, old, rates, width, row_place, has_columns, coefficients, sums, columns):
    """Update all rows of a strip, a few at a time, and sum what is wanted while they are in the cache."""
    columns[:, :width] = 0.0
    several = old.size // width
    for first in range(0, x.size // width, several):
        count = min(several, x.size // width - first)
        i, j = first * width, (first + count) * width
        _move(x[i:j], z[i:j], m[i:j], old[: j - i], *rates)
        shape = (count, width)
        o, y, g = old[: j - i].reshape(shape), x[i:j].reshape(shape), z[i:j].reshape(shape)
        if row_place >= 0 or has_columns:
            sum_rows(o, y, g, row_place + first if row_place >= 0 else -1, has_columns, sums, columns)
        if coefficients.size:
            _add_rows(o, y, g, coefficients[first : first + count], columns)


@jit(CONTRACTED)
def _put_columns(columns, taps, count, place, sums, shared):
    """Sums over rows go to the plan's sums, or behind them to those of another strip of the same rows."""
    planned = sums.shape[1]
    for s in range(columns.shape[0]):
        if place < planned:
            fold(columns[s], taps, sums[s, place : place + count])
        else:
            fold(columns[s], taps, shared[s, place - planned : place - planned + count])


@jit(CONTRACTED)
def _take(table, addresses, theta, buffer, rates, measured, before, gradient, coefficients, sums, shared, columns, old):
    """Take the strips of a table. `columns` and `old` (some rows of θ_k) are scratch."""
    for k in range(table.shape[0]):
        number, start, offset, rows, width, taps, row_place, column_place, kept, weighed, coefficient = table[k]
        size = rows * width
        z = numba.carray(_pointer(theta, addresses[number]), (start + size,))[start:]  # pyright: ignore
        x = theta[offset : offset + size]
        m = buffer[offset : offset + size] if buffer.size else x
        if measured and kept:
            before[offset : offset + size] = x
            gradient[offset : offset + size] = z
        if not measured or (row_place < 0 and column_place < 0 and weighed < 0):
            _only_move(x, z, m, *rates)
            continue
        if width == 1 and column_place < 0 and weighed < 0:
            _move(x, z, m, old[:size], *rates)
            _entries(old[:size], x, z, sums, row_place)
            continue
        c = coefficients[coefficient : coefficient + rows] if weighed >= 0 else coefficients[:0]
        _measured_rows(x, z, m, old, rates, width, row_place, column_place >= 0, c, sums, columns)
        if column_place >= 0:
            _put_columns(columns[:4], taps, width // taps, column_place, sums, shared)
        if weighed >= 0:
            _put_columns(columns[4:], 1, width, weighed, sums, shared)


@jit(CONTRACTED)
def take_alone(
    table, addresses, theta, buffer, rates, measured, before, gradient, coefficients, sums, shared, columns, old
):
    """Take the strips of a table."""
    _take(table, addresses, theta, buffer, rates, measured, before, gradient, coefficients, sums, shared, columns, old)


@jit(CONTRACTED, nogil=True)
def take_beside(
    table, addresses, theta, buffer, rates, measured, before, gradient, coefficients, sums, shared, columns, old
):
    """The same while other threads run; to ask for that costs a small step.

    It needs a name and code of its own: by these, not by `nogil`, compiled code is found again on the disk.
    """
    _take(table, addresses, theta, buffer, rates, measured, before, gradient, coefficients, sums, shared, columns, old)
