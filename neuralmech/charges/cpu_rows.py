"""What compiled code does to rows of a weight: SGD's update if the step is still to be taken, and sums of products.

One family of loops serves both cases: where `rates` is None, no code is made of what moves θ. numba leaves out what a
comparison with None decides; so it does with `columns` and `weighed`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuralmech.jit import CONTRACTED, EXACT, REORDERED, jit

COLUMNS = 7  # of θ², (ηu)², g², θg, and with coefficients θ, ηu, g


class SgdRates(NamedTuple):
    """Numbers of the type of θ."""

    lr: float
    momentum: float
    decay: float


class Into(NamedTuple):
    """Where sums go: of the plan, (≥ 4, sums), and behind them those of further strips of the same rows, (4, shared).

    `columns` (`COLUMNS`, entries of the widest row) is scratch.
    """

    sums: NDArray[np.float64]
    shared: NDArray[np.float64]
    columns: NDArray[np.float64]


@jit(CONTRACTED)
def copy(x, to):
    """A loop, because the message of an assignment that does not fit takes numba two seconds to compile."""
    for j in range(x.size):
        to[j] = x[j]


@jit(EXACT)
def _plus(a, b, c):
    """a·b + c, rounded twice."""
    return a * b + c


@jit(CONTRACTED)
def _direction(t, b, g, rates):
    """What SGD moves along; operations and their order are those of PyTorch's fused SGD."""
    v = t * rates.decay + g if rates.decay != 0 else g  # an infinite t is not to make this NaN
    return v if rates.momentum == 0 else _plus(b, rates.momentum, v)


@jit(CONTRACTED)
def _moved(t, v, lr):
    return t + v * (-lr)


@jit(EXACT)
def difference(t, y):
    """Of two numbers as stored: whoever may reorder makes ηv of t − (t − ηv)."""
    return t - y


@jit(CONTRACTED)
def only_move(x, z, m, rates):
    """Update some entries, and sum nothing."""
    if rates.momentum == 0:
        for j in range(x.size):
            x[j] = _moved(x[j], _direction(x[j], x[j], z[j], rates), rates.lr)
    else:
        for j in range(x.size):
            v = _direction(x[j], m[j], z[j], rates)
            m[j] = v
            x[j] = _moved(x[j], v, rates.lr)


@jit(CONTRACTED)
def _entry(x, y, z, m, j, rates):
    """θ_k, θ_k − θ_{k+1} and g of an entry, in float64; with `rates` the step is taken here, else y is θ_{k+1}.

    A momentum is written even where there is none, into room for it: a branch in the loop would cost more.
    """
    old, gradient = x[j], z[j]
    if rates is None:
        new = y[j]
    else:
        m[j] = v = _direction(old, m[j], gradient, rates)
        x[j] = new = _moved(old, v, rates.lr)
    t = np.float64(old)
    return t, difference(t, np.float64(new)), np.float64(gradient)


@jit(REORDERED)
def _entries(of, rates, sums, place):
    """Write the products of rows of one entry each."""
    x, y, z, m = of
    for j in range(x.size):
        t, u, g = _entry(x, y, z, m, j, rates)
        sums[0, place + j] = t * t
        sums[1, place + j] = u * u
        sums[2, place + j] = g * g
        sums[3, place + j] = t * g


@jit(REORDERED)
def _row(of, rates, sums, place, columns, weighed, c):
    """Sum the products of a row, and add these to the `columns`, and θ, ηu and g times c to the `weighed` ones."""
    x, y, z, m = of
    a0 = a1 = a2 = a3 = 0.0
    for j in range(x.size):
        t, u, g = _entry(x, y, z, m, j, rates)
        if columns is not None:
            columns[0, j] += t * t
            columns[1, j] += u * u
            columns[2, j] += g * g
            columns[3, j] += t * g
        if weighed is not None:
            weighed[0, j] += c * t
            weighed[1, j] += c * u
            weighed[2, j] += c * g
        if rates is None:  # the same: how many partial sums a compiler keeps, and so the last bits, depend on the order
            a0 += t * t
            a1 += u * u
            a2 += g * g
            a3 += t * g
        else:
            p0, p1, p2, p3 = t * t, u * u, g * g, t * g
            a0 += p0
            a1 += p1
            a2 += p2
            a3 += p3
    put(sums, place, a0, a1, a2, a3)


@jit(REORDERED)
def _two_rows(of, rates, sums, place, columns, weighed, pair):
    """The same for two rows, with a pair of coefficients: the columns, which cost most, are touched once for both."""
    x, y, z, m = of
    c, d = pair
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
    width = x.size // 2
    x1, x2, y1, y2 = x[:width], x[width:], y[:width], y[width:]
    z1, z2, m1, m2 = z[:width], z[width:], m[:width], m[width:]
    for j in range(width):
        t, u, g = _entry(x1, y1, z1, m1, j, rates)
        p0, p1, p2, p3 = t * t, u * u, g * g, t * g
        s, w, h = _entry(x2, y2, z2, m2, j, rates)
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


@jit(REORDERED)
def put(sums, place, a0, a1, a2, a3):
    """Write the sums of a row, if they are wanted."""
    if place >= 0:
        sums[0, place] = a0
        sums[1, place] = a1
        sums[2, place] = a2
        sums[3, place] = a3


@jit(CONTRACTED)
def _rows(of, rates, strip, sums, columns, weighed, coefficients, follows):
    """Sum what is wanted of all rows of a strip while they are in registers.

    Where it `follows` a step, θ_k becomes θ_{k+1} row by row, as long as the caches have it.
    """
    x, y, z, m = of
    rows, width, has_buffer = strip.rows, strip.columns, m.size == x.size
    pairs = rows // 2 if columns is not None or weighed is not None else 0
    for pair in range(pairs):
        row = 2 * pair
        i, j = row * width, (row + 2) * width
        b = m[i:j] if has_buffer else m[: 2 * width]
        place = strip.row_place + row if strip.row_place >= 0 else -1
        c = d = 0.0
        if weighed is not None:
            c, d = coefficients[row], coefficients[row + 1]
        _two_rows((x[i:j], y[i:j], z[i:j], b), rates, sums, place, columns, weighed, (c, d))
        if follows:
            copy(y[i:j], x[i:j])
    for row in range(2 * pairs, rows):
        i, j = row * width, (row + 1) * width
        b = m[i:j] if has_buffer else m[:width]
        place = strip.row_place + row if strip.row_place >= 0 else -1
        c = 0.0
        if weighed is not None:
            c = coefficients[row]
        _row((x[i:j], y[i:j], z[i:j], b), rates, sums, place, columns, weighed, c)
        if follows:
            copy(y[i:j], x[i:j])


@jit(CONTRACTED)
def sum_strip(of, rates, strip, coefficients, into, follows):
    """Sum a rectangle of which something is to be summed; with rates, update its θ_k and b.

    Where it `follows` a step that was taken, θ_k becomes θ_{k+1}.

    `of` are its entries of θ_k, θ_{k+1}, g and b.

    With `coefficients` None, rows are not weighed.
    """
    if strip.columns == 1 and strip.column_place < 0 and strip.weighed_place < 0:
        _entries(of, rates, into.sums, strip.row_place)
        if follows:
            copy(of[1], of[0])
        return
    products, vectors = into.columns[:4], into.columns[4:]
    into.columns[:, : strip.columns] = 0.0
    # Four ways, each a loop of its own: what is not wanted must not cost a branch per entry.
    if coefficients is None:
        if strip.column_place >= 0:
            _rows(of, rates, strip, into.sums, products, None, None, follows)
        else:
            _rows(of, rates, strip, into.sums, None, None, None, follows)
    else:
        c = coefficients[strip.coefficient : strip.coefficient + strip.rows]  # read only where rows are weighed
        if strip.column_place >= 0 and strip.weighed_place >= 0:
            _rows(of, rates, strip, into.sums, products, vectors, c, follows)
        elif strip.column_place >= 0:
            _rows(of, rates, strip, into.sums, products, None, None, follows)
        elif strip.weighed_place >= 0:
            _rows(of, rates, strip, into.sums, None, vectors, c, follows)
        else:
            _rows(of, rates, strip, into.sums, None, None, None, follows)
    if strip.column_place >= 0:
        put_columns(products, strip.taps, strip.columns // strip.taps, strip.column_place, into)
    if strip.weighed_place >= 0:
        put_columns(vectors, 1, strip.columns, strip.weighed_place, into)


@jit(CONTRACTED)
def put_columns(columns, taps, count, place, into):
    """Sums over rows go to the plan's sums, or behind them to those of another strip of the same rows."""
    planned = into.sums.shape[1]
    for s in range(columns.shape[0]):
        if place < planned:
            fold(columns[s], taps, into.sums[s, place : place + count])
        else:
            fold(columns[s], taps, into.shared[s, place - planned : place - planned + count])


@jit(REORDERED)
def fold(columns, taps, out):
    """Sum the kernel taps of each column."""
    for i in range(out.shape[0]):
        total = 0.0
        for tap in range(i * taps, (i + 1) * taps):
            total += columns[tap]
        out[i] = total
