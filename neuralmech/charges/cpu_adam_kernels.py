"""Compiled code for Adam: eight products per entry, summed over rows and columns; if asked, the step is taken there."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from neuralmech.charges.cpu_kernels import copy, pointer
from neuralmech.charges.cpu_rows import Into, difference, put_columns
from neuralmech.jit import CONTRACTED, EXACT, REORDERED, jit

PRODUCTS = 8  # θ², (ηu)², g², θg, θm/w, wθ², wθ′², m²/w


class Metric(NamedTuple):
    """√(1 − β₂^t) and ε of w = √v/√(1 − β₂^t) + ε; numbers of the type of θ."""

    root: float
    eps: float


class AdamRates(NamedTuple):
    """What a step takes, of the type of θ.

    Attributes
    ----------
    step
        −ηc.
    shrink
        1 − ηλ where the decay is decoupled, else 1.
    decay
        λ where it is not, else 0.
    first, back, second, kept
        1 − β₁ and that less 1, 1 − β₂, β₂.
    """

    step: float
    shrink: float
    decay: float
    first: float
    back: float
    second: float
    kept: float


@intrinsic
def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c, rounded once."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, b, c), generate


@jit(EXACT)
def _metric(v, metric):
    """w, rounded as the rule rounds it."""
    return np.sqrt(v) / metric.root + metric.eps


@jit(EXACT)
def _stepped(t, g, m, v, metric, rates):
    """θ, m, v and w after the step; operations and their order are those of PyTorch's fused Adam."""
    if rates.decay != 0:
        g = _fma(t, rates.decay, g)  # pyright: ignore
    change = g - m
    m = _fma(rates.first, change, m) if rates.first < 0.5 else _fma(rates.back, change, g)  # pyright: ignore
    v = _fma(rates.second * g, g, v * rates.kept)  # pyright: ignore
    w = _metric(v, metric)
    return t * rates.shrink + rates.step * m / w, m, v, w


@jit(CONTRACTED)
def _only_move(of, metric, rates):
    x, _, z, m, v = of
    for j in range(x.size):
        x[j], m[j], v[j], _ = _stepped(x[j], z[j], m[j], v[j], metric, rates)


@jit(REORDERED)
def _entry(of, r, metric, rates, j):
    """θ, θ′, g, w, m·r and m·r/w of an entry in float64; with `rates` the step is taken here, else y is θ′."""
    x, y, z, m, v = of
    old, gradient = x[j], z[j]
    if rates is None:
        new, mean, w = y[j], m[j], _metric(v[j], metric)
    else:
        new, mean, square, w = _stepped(old, gradient, m[j], v[j], metric, rates)
        x[j] = new
        m[j] = mean
        v[j] = square
    by = mean / w
    t, s, g, w = np.float64(old), np.float64(new), np.float64(gradient), np.float64(w)
    if r is None:
        return t, s, g, w, np.float64(mean), np.float64(by)
    return t, s, g, w, np.float64(mean) * r[j], np.float64(by) * r[j]


@jit(REORDERED)
def _products(of, r, metric, rates, j):
    t, s, g, w, m, by = _entry(of, r, metric, rates, j)
    u = difference(t, s)
    return t * t, u * u, g * g, t * g, t * by, t * t * w, s * s * w, m * by


@jit(REORDERED)
def _sum(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5], a[6] + b[6], a[7] + b[7]


@jit(REORDERED)
def _add(columns, j, p):
    columns[0, j] += p[0]
    columns[1, j] += p[1]
    columns[2, j] += p[2]
    columns[3, j] += p[3]
    columns[4, j] += p[4]
    columns[5, j] += p[5]
    columns[6, j] += p[6]
    columns[7, j] += p[7]


@jit(REORDERED)
def _put(sums, place, a):
    if place >= 0:
        for s, total in enumerate(a):
            sums[s, place] = total


@jit(REORDERED)
def _row(of, r, metric, rates, columns):
    """Sums of the products of a row, which are added to the columns, too."""
    a = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for j in range(of[0].size):
        p = _products(of, r, metric, rates, j)
        if columns is not None:
            _add(columns, j, p)
        a = _sum(a, p)
    return a


@jit(REORDERED)
def _two_rows(first, second, ratios, metric, rates, columns):
    """The same for two rows: the columns, which cost most, are touched once for both."""
    a = b = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for j in range(first[0].size):
        p = _products(first, ratios[0], metric, rates, j)
        q = _products(second, ratios[1], metric, rates, j)
        _add(columns, j, _sum(p, q))
        a, b = _sum(a, p), _sum(b, q)
    return a, b


@jit(REORDERED)
def _part(of, i, j):
    x, y, z, m, v = of
    return x[i:j], y[i:j], z[i:j], m[i:j], v[i:j]


@jit(REORDERED)
def _rows(of, r, metric, rates, strip, into, columns, follows):
    """Sum all rows of a strip; with `columns`, by twos; where it `follows` a step, θ_k becomes θ_{k+1}."""
    rows, width, place, sums = strip.rows, strip.columns, strip.row_place, into.sums
    pairs = 0 if columns is None else rows // 2
    if columns is not None:
        for pair in range(pairs):
            i, j, k = 2 * pair * width, (2 * pair + 1) * width, (2 * pair + 2) * width
            ratios = (None, None) if r is None else (r[i:j], r[j:k])
            a, b = _two_rows(_part(of, i, j), _part(of, j, k), ratios, metric, rates, columns)
            _put(sums, place + 2 * pair if place >= 0 else -1, a)
            _put(sums, place + 2 * pair + 1 if place >= 0 else -1, b)
            if follows:
                copy(of[1][i:k], of[0][i:k])
    for row in range(2 * pairs, rows):
        i, j = row * width, (row + 1) * width
        a = _row(_part(of, i, j), None if r is None else r[i:j], metric, rates, columns)
        _put(sums, place + row if place >= 0 else -1, a)
        if follows:
            copy(of[1][i:j], of[0][i:j])


@jit(CONTRACTED)
def _strip(of, r, metric, rates, strip, into, follows):
    if strip.column_place < 0:
        _rows(of, r, metric, rates, strip, into, None, follows)
        return
    into.columns[:, : strip.columns] = 0.0
    _rows(of, r, metric, rates, strip, into, into.columns, follows)
    put_columns(into.columns, strip.taps, strip.columns // strip.taps, strip.column_place, into)


@jit(CONTRACTED, nogil=True)
def sum_strips(table, of, r, metric, into):
    """Sum the products of θ_k, θ_{k+1}, g, m and v over all rectangles of a table; see `Into`."""
    metric, into = Metric(*metric), Into(*into)
    for k in range(table.shape[0]):
        strip = table[k]
        if strip.column_place < 0 and strip.row_place < 0:
            continue
        i, j = strip.start, strip.start + strip.rows * strip.columns
        _strip(_part(of, i, j), None if r is None else r[i:j], metric, None, strip, into, False)


@jit(CONTRACTED, nogil=True)
def take_step(table, of, moving, metric, rates, into):
    """Take a step on the rectangles of a table, θ in the second vector of `of`, m and v in the last two.

    `moving` are the addresses of the gradients, see `Moving`, and whether anything is summed or kept: θ_k and g then go
    where they are to be kept.
    """
    addresses, measured = moving
    metric, rates, into = Metric(*metric), AdamRates(*rates), Into(*into)
    before, after, gradient, mean, square = of
    for k in range(table.shape[0]):
        strip = table[k]
        i, j = strip.start, strip.start + strip.rows * strip.columns
        z = numba.carray(pointer(after, addresses[strip.parameter]), (j,))[i:]  # pyright: ignore
        x = after[i:j]
        if measured and strip.kept:
            copy(x, before[i:j])
            copy(z, gradient[i:j])
        part = x, x, z, mean[i:j], square[i:j]
        if not measured or (strip.row_place < 0 and strip.column_place < 0):
            _only_move(part, metric, rates)
        else:
            _strip(part, None, metric, rates, strip, into, False)


@jit(CONTRACTED, nogil=True)
def follow_adam(table, of, addresses, metric, into):
    """Sum up a step that was taken already, from θ_k in the second vector of `of`, which becomes θ_{k+1}.

    `addresses` are those of θ_{k+1}, g, m and v, see `Moving`; the other vectors get what is to be kept.
    """
    metric, into = Metric(*metric), Into(*into)
    before, after, gradient, mean, square = of
    for k in range(table.shape[0]):
        strip = table[k]
        n, i, j = strip.parameter, strip.start, strip.start + strip.rows * strip.columns
        x, y = after[i:j], numba.carray(pointer(after, addresses[0, n]), (j,))[i:]  # pyright: ignore
        if strip.kept or strip.row_place >= 0 or strip.column_place >= 0:
            z = numba.carray(pointer(after, addresses[1, n]), (j,))[i:]  # pyright: ignore
            m = numba.carray(pointer(after, addresses[2, n]), (j,))[i:]  # pyright: ignore
            v = numba.carray(pointer(after, addresses[3, n]), (j,))[i:]  # pyright: ignore
            if strip.kept:
                copy(x, before[i:j])
                copy(z, gradient[i:j])
                copy(m, mean[i:j])
                copy(v, square[i:j])
            if strip.row_place >= 0 or strip.column_place >= 0:
                _strip((x, y, z, m, v), None, metric, None, strip, into, True)
                continue
        copy(y, x)


@jit(REORDERED)
def finish(of, r, metric, correction, diagonal, entries, out):
    """Make c·θᵀSm/w of its sums, and write single entries' part of ⟨a, cm/w⟩, ⟨a, wθ⟩ and ⟨a, wθ′⟩."""
    metric = Metric(*metric)
    for charge in range(diagonal):
        out[0, charge] *= correction
    indptr, indices, data = entries
    for charge in range(indptr.shape[0] - 1):
        q = d = e = 0.0
        for k in range(indptr[charge], indptr[charge + 1]):
            t, s, _, w, _, by = _entry(of, r, metric, None, indices[k])
            q += data[k] * by
            d += data[k] * t * w
            e += data[k] * s * w
        out[0, diagonal + charge] = q * correction
        out[1, diagonal + charge] = d
        out[2, diagonal + charge] = e
        out[3, diagonal + charge] = 0.0


@jit(REORDERED)
def _vectors(of, r, metric, j):
    """θ, ηu, g, m/w, wθ and wθ′ of an entry."""
    t, s, g, w, _, by = _entry(of, r, metric, None, j)
    return t, difference(t, s), g, by, t * w, s * w


@jit(REORDERED)
def _all_to_one(of, r, metric, rates, c, out, place):
    """Add those of all entries, times c, to a charge."""
    a0 = a1 = a2 = a4 = a5 = a6 = 0.0
    for j in range(of[0].size):
        p0, p1, p2, p4, p5, p6 = _vectors(of, r, metric, j)
        a0 += p0
        a1 += p1
        a2 += p2
        a4 += p4
        a5 += p5
        a6 += p6
    out[0, place] += c * a0
    out[1, place] += c * a1 * rates[0]
    out[2, place] += c * a2
    out[3, place] += c * a2
    out[4, place] += c * a4 * rates[1]
    out[5, place] += c * a5
    out[6, place] += c * a6


@jit(REORDERED)
def _each_to_its_own(of, r, metric, rates, c, out):
    """Add those of each entry, times c, to a charge of its own."""
    c1, c4 = c * rates[0], c * rates[1]
    for j in range(of[0].size):
        p0, p1, p2, p4, p5, p6 = _vectors(of, r, metric, j)
        out[0, j] += c * p0
        out[1, j] += c1 * p1
        out[2, j] += c * p2
        out[3, j] += c * p2
        out[4, j] += c4 * p4
        out[5, j] += c * p5
        out[6, j] += c * p6


@jit(CONTRACTED, nogil=True)
def add_translations(pieces, of, r, metric, rates, out):
    """Add all signals of some pieces to their translation charges; `rates` are 1/η and c."""
    metric = Metric(*metric)
    for k in range(pieces.shape[0]):
        piece = pieces[k]
        for row in range(piece.rows):
            i, place = piece.start + row * piece.stride, piece.charge + row * piece.row_step
            j = i + piece.columns
            part, ratio = _part(of, i, j), None if r is None else r[i:j]
            if piece.column_step == 0:
                _all_to_one(part, ratio, metric, rates, piece.weight, out, place)
            else:
                _each_to_its_own(part, ratio, metric, rates, piece.weight, out[:, place : place + piece.columns])
