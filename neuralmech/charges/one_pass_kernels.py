"""What the compiled pass does to a strip of parameters: SGD's update, and the sums that charges are made of."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from neuralmech.charges.sums import fold, put
from neuralmech.jit import CONTRACTED, EXACT, REORDERED, jit

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
def _direction(t, b, g, momentum, decay):
    """What SGD moves along; operations and their order are those of PyTorch's fused SGD."""
    v = t * decay + g if decay != 0 else g  # an infinite t is not to make this NaN
    return v if momentum == 0 else _plus(b, momentum, v)


@jit(CONTRACTED)
def _moved(t, v, lr):
    return t + v * (-lr)


@jit(EXACT)
def _difference(t, y):
    """Of two numbers as stored: whoever may reorder makes ηv of t − (t − ηv)."""
    return t - y


@jit(CONTRACTED)
def _only_move(x, z, m, lr, momentum, decay):
    """Update some entries, and sum nothing."""
    if momentum == 0:
        for j in range(x.size):
            x[j] = _moved(x[j], _direction(x[j], x[j], z[j], momentum, decay), lr)
    else:
        for j in range(x.size):
            v = _direction(x[j], m[j], z[j], momentum, decay)
            m[j] = v
            x[j] = _moved(x[j], v, lr)


@jit(REORDERED)
def _entries(x, z, m, rates, sums, place):
    """Update rows of one entry each, and write their products."""
    lr, momentum, decay = rates
    for j in range(x.size):
        old, gradient = x[j], z[j]
        m[j] = v = _direction(old, m[j], gradient, momentum, decay)
        x[j] = new = _moved(old, v, lr)
        t, g = np.float64(old), np.float64(gradient)
        u = _difference(t, np.float64(new))
        sums[0, place + j] = t * t
        sums[1, place + j] = u * u
        sums[2, place + j] = g * g
        sums[3, place + j] = t * g


@jit(REORDERED)
def _row(x, z, m, rates, sums, place, columns, weighed, c):
    """Update a row, sum its products, and add these to the `columns`, and θ, ηu and g times c to the `weighed` ones.

    Either may be None, of which no code is made.
    """
    lr, momentum, decay = rates
    a0 = a1 = a2 = a3 = 0.0
    for j in range(x.size):
        old, gradient = x[j], z[j]
        m[j] = v = _direction(old, m[j], gradient, momentum, decay)
        x[j] = new = _moved(old, v, lr)
        t, g = np.float64(old), np.float64(gradient)
        u = _difference(t, np.float64(new))
        p0, p1, p2, p3 = t * t, u * u, g * g, t * g
        if columns is not None:
            columns[0, j] += p0
            columns[1, j] += p1
            columns[2, j] += p2
            columns[3, j] += p3
        if weighed is not None:
            weighed[0, j] += c * t
            weighed[1, j] += c * u
            weighed[2, j] += c * g
        a0 += p0
        a1 += p1
        a2 += p2
        a3 += p3
    put(sums, place, a0, a1, a2, a3)


@jit(REORDERED)
def _two_rows(x, z, m, rates, sums, place, columns, weighed, c, d):
    """The same for two rows, with coefficients c and d: the columns, which cost most, are touched once for both."""
    lr, momentum, decay = rates
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
    width = x.size // 2
    x1, x2, z1, z2, m1, m2 = x[:width], x[width:], z[:width], z[width:], m[:width], m[width:]
    for j in range(width):
        old, gradient = x1[j], z1[j]
        m1[j] = v = _direction(old, m1[j], gradient, momentum, decay)
        x1[j] = new = _moved(old, v, lr)
        t, g = np.float64(old), np.float64(gradient)
        u = _difference(t, np.float64(new))
        p0, p1, p2, p3 = t * t, u * u, g * g, t * g
        old, gradient = x2[j], z2[j]
        m2[j] = v = _direction(old, m2[j], gradient, momentum, decay)
        x2[j] = new = _moved(old, v, lr)
        s, h = np.float64(old), np.float64(gradient)
        w = _difference(s, np.float64(new))
        q0, q1, q2, q3 = s * s, w * w, h * h, s * h
        if columns is not None:
            columns[0, j] += p0 + q0
            columns[1, j] += p1 + q1
            columns[2, j] += p2 + q2
            columns[3, j] += p3 + q3
        if weighed is not None:
            weighed[0, j] += c * t + d * s
            weighed[1, j] += c * u + d * w
            weighed[2, j] += c * g + d * h
        a0 += p0
        a1 += p1
        a2 += p2
        a3 += p3
        b0 += q0
        b1 += q1
        b2 += q2
        b3 += q3
    put(sums, place, a0, a1, a2, a3)
    put(sums, place + 1 if place >= 0 else place, b0, b1, b2, b3)


@jit(CONTRACTED)
def _rows(x, z, m, rates, width, row_place, columns, weighed, coefficients, sums):
    """Update all rows of a strip, and sum what is wanted of them while they are in registers."""
    rows, has_buffer = x.size // width, m.size == x.size
    pairs = rows // 2 if columns is not None or weighed is not None else 0
    for pair in range(pairs):
        row = 2 * pair
        i, j = row * width, (row + 2) * width
        b = m[i:j] if has_buffer else m[: 2 * width]
        place = row_place + row if row_place >= 0 else -1
        c = d = 0.0
        if weighed is not None:
            c, d = coefficients[row], coefficients[row + 1]
        _two_rows(x[i:j], z[i:j], b, rates, sums, place, columns, weighed, c, d)
    for row in range(2 * pairs, rows):
        i, j = row * width, (row + 1) * width
        b = m[i:j] if has_buffer else m[:width]
        place = row_place + row if row_place >= 0 else -1
        c = 0.0
        if weighed is not None:
            c = coefficients[row]
        _row(x[i:j], z[i:j], b, rates, sums, place, columns, weighed, c)


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
def _take(
    table, addresses, theta, buffer, rates, measured, before, gradient, coefficients, sums, shared, columns, spare
):
    """Take the strips of a table. `columns` is scratch, `spare` stands in for a momentum buffer where there is none."""
    for k in range(table.shape[0]):
        number, start, offset, rows, width, taps, row_place, column_place, kept, weighed, coefficient = table[k]
        size = rows * width
        z = numba.carray(_pointer(theta, addresses[number]), (start + size,))[start:]  # pyright: ignore
        x = theta[offset : offset + size]
        m = buffer[offset : offset + size] if buffer.size else spare
        if measured and kept:
            before[offset : offset + size] = x
            gradient[offset : offset + size] = z
        if not measured or (row_place < 0 and column_place < 0 and weighed < 0):
            _only_move(x, z, m, *rates)
            continue
        if width == 1 and column_place < 0 and weighed < 0:
            _entries(x, z, m, rates, sums, row_place)
            continue
        columns[:, :width] = 0.0
        products, vectors = columns[:4], columns[4:]
        c = coefficients[coefficient : coefficient + rows]  # read only where rows are weighed
        if column_place >= 0 and weighed >= 0:
            _rows(x, z, m, rates, width, row_place, products, vectors, c, sums)
        elif column_place >= 0:
            _rows(x, z, m, rates, width, row_place, products, None, c, sums)
        elif weighed >= 0:
            _rows(x, z, m, rates, width, row_place, None, vectors, c, sums)
        else:
            _rows(x, z, m, rates, width, row_place, None, None, c, sums)
        if column_place >= 0:
            _put_columns(columns[:4], taps, width // taps, column_place, sums, shared)
        if weighed >= 0:
            _put_columns(columns[4:], 1, width, weighed, sums, shared)


@jit(CONTRACTED)
def take_alone(
    table, addresses, theta, buffer, rates, measured, before, gradient, coefficients, sums, shared, columns, spare
):
    """Take the strips of a table."""
    _take(
        table, addresses, theta, buffer, rates, measured, before, gradient, coefficients, sums, shared, columns, spare
    )


@jit(CONTRACTED, nogil=True)
def take_beside(
    table, addresses, theta, buffer, rates, measured, before, gradient, coefficients, sums, shared, columns, spare
):
    """The same while other threads run; to ask for that costs a small step.

    It needs a name and code of its own: by these, not by `nogil`, compiled code is found again on the disk.
    """
    _take(
        table, addresses, theta, buffer, rates, measured, before, gradient, coefficients, sums, shared, columns, spare
    )
