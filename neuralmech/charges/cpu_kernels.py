"""Compiled code that goes through tables of rectangles: from vectors to sums, and from sums to charges.

What Python calls takes plain tuples and names their parts inside: numba takes a microsecond longer to find out the type
of a named one, which a small step would notice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from neuralmech.charges.cpu_rows import Into, SgdRates, copy, fold, only_move, sum_strip
from neuralmech.jit import CONTRACTED, EXACT, REORDERED, jit

AT_ONCE = 1 << 10  # entries that are compared before anything is said of them


class StepVectors(NamedTuple):
    """θ_k, θ_{k+1} and g, flat."""

    before: NDArray
    after: NDArray
    gradient: NDArray


class Moving(NamedTuple):
    """What a step that is still to be taken needs beside θ.

    Attributes
    ----------
    addresses
        Of the gradient of each parameter, as if it began where the flat vector does.
    buffer, spare
        Momenta, flat, or none; then there is room for those of two rows.
    measured
        Whether anything is summed or kept.
    """

    addresses: NDArray[np.int64]
    buffer: NDArray
    spare: NDArray
    rates: SgdRates
    measured: bool


@intrinsic
def pointer(typingctx: Any, like: Any, address: Any) -> Any:
    """The address as a pointer to numbers of the type that `like` has."""
    signature = types.CPointer(like.dtype)(like, address)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[1], context.get_value_type(signature.return_type))

    return signature, generate


@jit(EXACT)
def differ(flat, addresses, ends, first, last):
    """Whether some bits of a flat vector between two places are not those of the tensors that it was made of.

    `flat` holds whole numbers as wide as its entries; `addresses` of the tensors are as in `Moving`, 0 for those to be
    left out; `ends` are where each one's entries end.
    """
    start = 0
    for n in range(addresses.size):
        i, j, start = max(start, first), min(ends[n], last), ends[n]
        if i >= j or addresses[n] == 0:
            continue
        there = numba.carray(pointer(flat, addresses[n]), (j,))  # pyright: ignore
        for k in range(i, j, AT_ONCE):
            mine, bits = flat[k : min(k + AT_ONCE, j)], flat[k] ^ flat[k]
            others = there[k : k + mine.size]
            for m in range(mine.size):
                bits |= mine[m] ^ others[m]
            if bits:
                return True
    return False


@jit(EXACT, nogil=True)
def differ_beside(flat, addresses, ends, first, last):
    """The same while other threads run, see `take_beside`."""
    return differ(flat, addresses, ends, first, last)


@jit(CONTRACTED)
def sum_up(table, vectors, into):
    """Row and column sums of θ², (ηu)², g² and θg for every rectangle of a table; see `StepVectors`, `Into`."""
    vectors, into = StepVectors(*vectors), Into(*into)
    for k in range(table.shape[0]):
        strip = table[k]
        i, j = strip.start, strip.start + strip.rows * strip.columns
        x = vectors.before[i:j]
        sum_strip((x, vectors.after[i:j], vectors.gradient[i:j], x), None, strip, None, into, False)


@jit(CONTRACTED)
def _take(table, vectors, moving, coefficients, into):
    vectors, into = StepVectors(*vectors), Into(*into)
    addresses, buffer, spare, rates, measured = moving
    moving = Moving(addresses, buffer, spare, SgdRates(*rates), measured)
    for k in range(table.shape[0]):
        strip = table[k]
        i, j = strip.start, strip.start + strip.rows * strip.columns
        z = numba.carray(pointer(vectors.after, moving.addresses[strip.parameter]), (j,))[i:]  # pyright: ignore
        x = vectors.after[i:j]
        m = moving.buffer[i:j] if moving.buffer.size else moving.spare
        if moving.measured and strip.kept:
            copy(x, vectors.before[i:j])
            copy(z, vectors.gradient[i:j])
        if not moving.measured or (strip.row_place < 0 and strip.column_place < 0 and strip.weighed_place < 0):
            only_move(x, z, m, moving.rates)
        else:
            sum_strip((x, x, z, m), moving.rates, strip, coefficients, into, False)


@jit(CONTRACTED)
def take_alone(table, vectors, moving, coefficients, into):
    """Take a step on the strips of a table, from θ in ``StepVectors.after``; the others get what is to be kept."""
    _take(table, vectors, moving, coefficients, into)


@jit(CONTRACTED, nogil=True)
def take_beside(table, vectors, moving, coefficients, into):
    """The same while other threads run; to ask for that costs a small step.

    It needs a name and code of its own: by these, not by `nogil`, compiled code is found again on the disk.
    """
    _take(table, vectors, moving, coefficients, into)


@jit(CONTRACTED, nogil=True)
def follow_step(table, vectors, taken, coefficients, into):
    """Sum up a step that was taken already, from θ_k in ``StepVectors.after``, which becomes θ_{k+1}.

    `taken` are the addresses of θ_{k+1} and of g, see `Moving`; the other vectors get what is to be kept.
    """
    vectors, into = StepVectors(*vectors), Into(*into)
    behind, gradients = taken[0], taken[1]
    for k in range(table.shape[0]):
        strip = table[k]
        i, j = strip.start, strip.start + strip.rows * strip.columns
        y = numba.carray(pointer(vectors.after, behind[strip.parameter]), (j,))[i:]  # pyright: ignore
        x = vectors.after[i:j]
        summed = strip.row_place >= 0 or strip.column_place >= 0 or strip.weighed_place >= 0
        if strip.kept or summed:
            z = numba.carray(pointer(vectors.after, gradients[strip.parameter]), (j,))[i:]  # pyright: ignore
            if strip.kept:
                copy(x, vectors.before[i:j])
                copy(z, vectors.gradient[i:j])
            if summed:
                sum_strip((x, y, z, x), None, strip, coefficients, into, True)
        if not summed:
            copy(y, x)


@jit(REORDERED)
def sum_pairs(first, second, table, sums, columns):
    """Row and column sums of one product; `columns` is scratch."""
    for k in range(table.shape[0]):
        strip = table[k]
        width = strip.columns
        columns[0, :width] = 0.0
        for row in range(strip.rows):
            start = strip.start + row * width
            x, y = first[start : start + width], second[start : start + width]
            total = 0.0
            for j in range(width):
                p = np.float64(x[j]) * np.float64(y[j])
                columns[0, j] += p
                total += p
            if strip.row_place >= 0:
                sums[strip.row_place + row] = total
        if strip.column_place >= 0:
            place = strip.column_place
            fold(columns[0], strip.taps, sums[place : place + width // strip.taps])


@jit(REORDERED)
def add_pieces(vector, pieces, entries, out):
    """⟨a, x⟩ of every translation charge."""
    indptr, indices, data = entries
    for charge in range(indptr.shape[0] - 1):
        total = 0.0
        for k in range(indptr[charge], indptr[charge + 1]):
            total += data[k] * np.float64(vector[indices[k]])
        out[charge] = total
    for k in range(pieces.shape[0]):
        piece = pieces[k]
        c, inner, step = piece.weight, piece.columns, piece.column_step
        for a in range(piece.rows):
            start, place = piece.start + a * piece.stride, piece.charge + a * piece.row_step
            for j in range(inner):
                out[place + j * step] += c * np.float64(vector[start + j])


@jit(REORDERED)
def _add_steps(rate, vectors, pieces, out):
    """Add ⟨a, θ⟩, ⟨a, u⟩ and ⟨a, g⟩ of every piece to its charges."""
    before, after, gradient = vectors
    for k in range(pieces.shape[0]):
        piece = pieces[k]
        c, inner = piece.weight, piece.columns
        for a in range(piece.rows):
            start, place = piece.start + a * piece.stride, piece.charge + a * piece.row_step
            x, y, z = before[start : start + inner], after[start : start + inner], gradient[start : start + inner]
            if piece.column_step == 0:
                q = d = r = 0.0
                for j in range(inner):
                    t = np.float64(x[j])
                    q += t
                    d += t - np.float64(y[j])
                    r += np.float64(z[j])
                out[0, place] += c * q
                out[1, place] += c * d * rate
                out[2, place] += c * r
                continue
            for j in range(inner):
                t = np.float64(x[j])
                out[0, place + j] += c * t
                out[1, place + j] += c * (t - np.float64(y[j])) * rate
                out[2, place + j] += c * np.float64(z[j])


@jit(REORDERED)
def put_together(combine, sums, out):
    """Make quadratic charges of sums, for all signals."""
    indptr, indices, data = combine
    for charge in range(indptr.shape[0] - 1):
        for s in range(sums.shape[0]):
            total = 0.0
            for k in range(indptr[charge], indptr[charge + 1]):
                total += data[k] * sums[s, indices[k]]
            out[s, charge] = total


@jit(REORDERED)
def close(rate, combine, sums, weighed, vectors, rest, out):
    """The sums of every diagonal charge, then ⟨a, θ⟩, ⟨a, u⟩ and ⟨a, g⟩ of every other: one call for all.

    Of the weights in the table `weighed` the rows are summed already; `rest` are pieces and single entries of the
    translation charges, which are read here.
    """
    diagonal = combine[0].shape[0] - 1
    put_together(combine, sums, out)
    for charge in range(diagonal):
        out[1, charge] *= rate * rate
    before, after, gradient = vectors
    pieces, (indptr, indices, data) = rest
    for charge in range(indptr.shape[0] - 1):
        q = d = r = 0.0
        for k in range(indptr[charge], indptr[charge + 1]):
            c, t = data[k], np.float64(before[indices[k]])
            q += c * t
            d += c * (t - np.float64(after[indices[k]]))
            r += c * np.float64(gradient[indices[k]])
        out[0, diagonal + charge] = q
        out[1, diagonal + charge] = d * rate
        out[2, diagonal + charge] = r
    for k in range(weighed.shape[0]):
        strip = weighed[k]
        place, charge = strip.weighed_place, strip.charge
        for s in range(3):
            factor = rate if s == 1 else 1.0
            for j in range(strip.columns):
                out[s, diagonal + charge + j] += factor * sums[s, place + j]
    _add_steps(rate, vectors, pieces, out[:, diagonal:])
    for charge in range(diagonal, out.shape[1]):
        out[3, charge] = out[2, charge]


@jit(CONTRACTED)
def follow_and_close(following, closing):
    """`follow_step`, then `close`, of which these are the arguments."""
    follow_step(*following)
    close(*closing)
