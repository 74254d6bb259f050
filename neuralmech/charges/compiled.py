"""Charges on the CPU: every parameter is read once, and its row and column sums come out of that one pass."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from neuralmech.charges.one_pass import OnePass
from neuralmech.charges.plan import Ints, QuadraticPlan
from neuralmech.charges.step import MAIN, QUADRATIC, TRANSLATION, Motion, Step
from neuralmech.charges.sums import fold, sum_rows
from neuralmech.charges.translation_plan import TranslationPlan, WholeRows, whole_rows
from neuralmech.jit import REORDERED, jit
from neuralmech.symmetry.layout import Layout

NO_ROWS = np.zeros((0, 5), dtype=np.int64)


@jit(REORDERED)
def _main_sums(before, after, gradient, blocks, sums, columns):
    """Row and column sums of θ², (ηu)², g² and θg for every block; `columns` is scratch."""
    for k in range(blocks.shape[0]):
        offset, groups, rows, inner, taps, row_place, column_place = blocks[k]
        width = inner * taps
        for group in range(groups):
            if column_place >= 0:
                columns[:, :width] = 0.0
            start, shape = offset + group * rows * width, (rows, width)
            x = before[start : start + rows * width].reshape(shape)
            y = after[start : start + rows * width].reshape(shape)
            z = gradient[start : start + rows * width].reshape(shape)
            sum_rows(x, y, z, row_place + group * rows if row_place >= 0 else -1, column_place >= 0, sums, columns)
            if column_place >= 0:
                place = column_place + group * inner
                for s in range(4):
                    fold(columns[s], taps, sums[s, place : place + inner])


@jit(REORDERED)
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
                fold(columns[0], taps, sums[place : place + inner])


@jit(REORDERED)
def _add_pieces(rate, before, after, gradient, pieces, coefficients, out):
    """Add ⟨a, θ⟩, ⟨a, u⟩ and ⟨a, g⟩ of every piece to its charges."""
    for k in range(pieces.shape[0]):
        offset, outer, stride, inner, charge, outer_step, inner_step = pieces[k]
        c = coefficients[k]
        for a in range(outer):
            start, place = offset + a * stride, charge + a * outer_step
            x, y, z = before[start : start + inner], after[start : start + inner], gradient[start : start + inner]
            if inner_step == 0:
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
def _close(rate, combine, sums, weighed, before, after, gradient, pieces, coefficients, entries, out):
    """The sums of every diagonal charge, then ⟨a, θ⟩, ⟨a, u⟩ and ⟨a, g⟩ of every other: one call for all.

    Of the weights in `weighed` the rows are summed already.
    """
    indptr, indices, data = combine
    diagonal = indptr.shape[0] - 1
    for charge in range(diagonal):
        for s in range(sums.shape[0]):
            total = 0.0
            for k in range(indptr[charge], indptr[charge + 1]):
                total += data[k] * sums[s, indices[k]]
            out[s, charge] = total * rate * rate if s == 1 else total
    indptr, indices, data = entries
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
        _, width, _, place, charge = weighed[k]
        for s in range(3):
            factor = rate if s == 1 else 1.0
            for j in range(width):
                out[s, diagonal + charge + j] += factor * sums[s, place + j]
    _add_pieces(rate, before, after, gradient, pieces, coefficients, out[:, diagonal:])
    out[3, diagonal:] = out[2, diagonal:]


@jit(REORDERED)
def _pieces(vector, pieces, coefficients, entries, out):
    indptr, indices, data = entries
    for charge in range(indptr.shape[0] - 1):
        total = 0.0
        for k in range(indptr[charge], indptr[charge + 1]):
            total += data[k] * np.float64(vector[indices[k]])
        out[charge] = total
    for k in range(pieces.shape[0]):
        offset, outer, stride, inner, charge, outer_step, inner_step = pieces[k]
        for a in range(outer):
            start, place = offset + a * stride, charge + a * outer_step
            for j in range(inner):
                out[place + j * inner_step] += coefficients[k] * np.float64(vector[start + j])


class CompiledForms:
    """All diagonal and translation charges of a step, on the CPU.

    `signals` begin with value, drive_update, drive_gradient and residual. Charges are in the plans' order:
    diagonal ones first.
    """

    def __init__(self, quadratic: QuadraticPlan, translation: TranslationPlan, signals: tuple[str, ...]) -> None:
        assert signals[: len(MAIN)] == MAIN
        self._signals, self._q, self._l = signals, quadratic, translation
        width = int((quadratic.blocks[:, 3] * quadratic.blocks[:, 4]).max(initial=1))
        self._sums = np.zeros((len(signals), quadratic.sums))
        self._columns = np.zeros((len(MAIN), width))
        self._split = quadratic.combine.shape[0]
        self._rows: WholeRows | None = None

    def evaluate(self, step: Step, out: Tensor) -> None:
        """Write the forms to `out`, float64 (signals, charges)."""
        vectors = tuple(v.detach().numpy() for v in (step.before, step.after, step.gradient))
        if self._split:
            _main_sums(*vectors, self._q.blocks, self._sums, self._columns)
        self._finish(step, vectors, NO_ROWS, self._l, out)

    def one_pass(self, layout: Layout, theta: Tensor, kept: Collection[str]) -> OnePass:
        """What takes steps for `advance`; `kept` are parameters whose θ_k and g somebody else needs after it."""
        rows = self._rows = whole_rows(self._l, self._q.blocks, self._q.sums, layout)
        self._sums = np.zeros((len(self._signals), self._q.sums + rows.sums))
        names, offsets = list(layout.offsets), np.array(list(layout.offsets.values()))
        places = np.concatenate([rows.rest.pieces[:, 0], rows.rest.entries.indices])
        pieces = {names[i] for i in np.searchsorted(offsets, places, side="right") - 1}
        return OnePass(self._q.blocks, rows, self._sums, layout, {*kept, *pieces}, theta)

    def advance(self, take: OnePass, motion: Motion, step: Step, out: Tensor) -> None:
        """Take a step and write the forms to `out`; `step` is what `take` keeps of it."""
        assert self._rows is not None
        take.move(motion, measured=True)
        if len(take.rest):
            _main_sums(*take.vectors, take.rest, self._sums, self._columns)
        self._finish(step, take.vectors, self._rows.blocks, self._rows.rest, out)

    def _finish(
        self, step: Step, vectors: tuple[NDArray, ...], weighed: Ints, rest: TranslationPlan, out: Tensor
    ) -> None:
        """From the sums to the forms; `rest` are the translation charges' parts that are not summed yet."""
        target, q, p = out.numpy(), self._q, self._l
        for i, signal in enumerate(self._signals[len(MAIN) :], len(MAIN)):
            if self._split:
                pair = tuple(step.vector(name).numpy() for name in QUADRATIC[signal])
                _pair_sums(*pair, q.blocks, self._sums[i], self._columns)
            if p.charges and signal in TRANSLATION:
                vector, charges = step.vector(TRANSLATION[signal]).numpy(), target[i, self._split :]
                _pieces(vector, p.pieces, p.coefficients, _compressed(p.entries), charges)
            else:
                target[i, self._split :] = 0.0  # a charge linear in the parameters has no noise drive
        sums = _compressed(q.combine), self._sums, weighed
        parts = rest.pieces, rest.coefficients, _compressed(rest.entries)
        _close(float(step.rate), *sums, *vectors, *parts, target)


def _compressed(matrix: sparse.csr_array) -> tuple[NDArray, NDArray, NDArray]:
    return matrix.indptr, matrix.indices, matrix.data
