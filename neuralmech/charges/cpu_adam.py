"""The signals of Adam's laws on the CPU: one more pass over θ_k, θ_{k+1}, m and v, shared by threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.charges.cpu_rows import Into, put, put_columns
from neuralmech.charges.cpu_strips import in_threads, strips, threads_for
from neuralmech.charges.plan import Plan, rectangles
from neuralmech.charges.step import Step
from neuralmech.jit import CONTRACTED, REORDERED, jit

SIGNALS = ("rule_work", "metric_value", "metric_carried", "metric_drive")


class Numbers(NamedTuple):
    """c, 1/√(1 − β₂^t) and ε; the latter two of the type of θ."""

    correction: float
    root: float
    eps: float


@jit(REORDERED)
def _entry(of, r, numbers, j):
    """θ, θ′, w, m·r and m·r/w of an entry in float64; w is rounded as the rule rounds it."""
    x, y, m, v = of
    w = np.sqrt(v[j]) * numbers.root + numbers.eps
    mean = m[j]
    by = mean / w
    if r is not None:
        return np.float64(x[j]), np.float64(y[j]), np.float64(w), np.float64(mean) * r[j], np.float64(by) * r[j]
    return np.float64(x[j]), np.float64(y[j]), np.float64(w), np.float64(mean), np.float64(by)


@jit(REORDERED)
def _row(of, r, numbers, columns):
    """Sums of θ·cm/w, wθ², wθ′² and m²/w over a row, which are added to the columns, too."""
    a0 = a1 = a2 = a3 = 0.0
    for j in range(of[0].size):
        t, s, w, m, by = _entry(of, r, numbers, j)
        p0, p1, p2, p3 = t * by, t * t * w, s * s * w, m * by
        if columns is not None:
            columns[0, j] += p0
            columns[1, j] += p1
            columns[2, j] += p2
            columns[3, j] += p3
        a0 += p0
        a1 += p1
        a2 += p2
        a3 += p3
    return a0, a1, a2, a3


@jit(REORDERED)
def _rows(of, r, numbers, strip, sums, columns):
    width = strip.columns
    x, y, m, v = of
    for row in range(strip.rows):
        i = strip.start + row * width
        j = i + width
        part = (x[i:j], y[i:j], m[i:j], v[i:j])
        if r is None:
            a0, a1, a2, a3 = _row(part, None, numbers, columns)
        else:
            a0, a1, a2, a3 = _row(part, r[i:j], numbers, columns)
        put(sums, strip.row_place + row if strip.row_place >= 0 else -1, a0, a1, a2, a3)


@jit(CONTRACTED, nogil=True)
def sum_strips(table, of, r, numbers, sums, shared, columns):
    """Sum all rectangles of a table; places behind the plan's sums are of shared ones."""
    numbers, into = Numbers(*numbers), Into(sums, shared, columns)
    for k in range(table.shape[0]):
        strip = table[k]
        if strip.column_place < 0:
            if strip.row_place >= 0:
                _rows(of, r, numbers, strip, sums, None)
            continue
        columns[:, : strip.columns] = 0.0
        _rows(of, r, numbers, strip, sums, columns)
        put_columns(columns, strip.taps, strip.columns // strip.taps, strip.column_place, into)


@jit(REORDERED)
def finish(of, r, numbers, combine, sums, rest, out):
    """Sums of every diagonal charge, then ⟨a, cm/w⟩, ⟨a, wθ⟩ and ⟨a, wθ′⟩ of every translation charge."""
    numbers = Numbers(*numbers)
    indptr, indices, data = combine
    diagonal = indptr.shape[0] - 1
    for charge in range(diagonal):
        for s in range(4):
            total = 0.0
            for k in range(indptr[charge], indptr[charge + 1]):
                total += data[k] * sums[s, indices[k]]
            out[s, charge] = total * numbers.correction if s == 0 else total
    pieces, (indptr, indices, data) = rest
    for charge in range(indptr.shape[0] - 1):
        q = d = e = 0.0
        for k in range(indptr[charge], indptr[charge + 1]):
            t, s, w, _, by = _entry(of, r, numbers, indices[k])
            q += data[k] * by
            d += data[k] * t * w
            e += data[k] * s * w
        out[0, diagonal + charge] = q * numbers.correction
        out[1, diagonal + charge] = d
        out[2, diagonal + charge] = e
        out[3, diagonal + charge] = 0.0
    for k in range(pieces.shape[0]):
        piece = pieces[k]
        for a in range(piece.rows):
            start, place = piece.start + a * piece.stride, diagonal + piece.charge + a * piece.row_step
            for j in range(piece.columns):
                t, s, w, _, by = _entry(of, r, numbers, start + j)
                at = place + j * piece.column_step
                out[0, at] += piece.weight * by * numbers.correction
                out[1, at] += piece.weight * t * w
                out[2, at] += piece.weight * s * w


class AdamSums:
    """The signals `SIGNALS` of all charges of a plan."""

    def __init__(self, plan: Plan, combine: tuple[NDArray, ...], rest: tuple[NDArray, tuple[NDArray, ...]]) -> None:
        quadratic, nothing = plan.quadratic, rectangles(start=[], columns=[])
        cut = strips(quadratic.table, nothing, quadratic.sums, plan.layout, (), threads_for(plan.layout))
        self._combine, self._rest, self._join = combine, rest, cut.join
        self._sums, self._shared = np.zeros((4, quadratic.sums)), np.zeros((4, cut.shared))
        tables = [*cut.parts, *([cut.rest] if len(cut.rest) else [])]  # the rest covers entries a second time
        self._parts = [(table, np.zeros((4, table["columns"].max(initial=1)))) for table in tables]
        self._pool = ThreadPoolExecutor(len(tables) - 1) if len(tables) > 1 else None

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write the four signals to `out`."""
        moments = step.moments
        assert moments is not None
        ratio = None if step.ratio is None else step.ratio.numpy()
        flat = (step.before, step.after, moments.mean, moments.square)
        of = tuple(v.detach().numpy() for v in flat)
        kind = of[0].dtype.type
        numbers = (float(moments.correction), kind(moments.root), kind(moments.eps))
        calls = [(table, of, ratio, numbers, self._sums, self._shared, columns) for table, columns in self._parts]
        in_threads(self._pool, sum_strips, calls)
        self._join(self._sums, self._shared)
        finish(of, ratio, numbers, self._combine, self._sums, self._rest, out.numpy())
