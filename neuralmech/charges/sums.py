"""Compiled sums of θ², (ηu)², g² and θg over the rows and columns of a weight."""

from __future__ import annotations

import numpy as np

from neuralmech.jit import REORDERED, jit


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
    put(sums, place, a0, a1, a2, a3)


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
    put(sums, place, a0, a1, a2, a3)


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


@jit(REORDERED)
def sum_rows(old, y, z, row_place, has_columns, sums, columns):
    """Sums over the rows of a matrix, and its columns if wanted; row sums begin at `row_place` (−1: not wanted)."""
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
def fold(columns, taps, out):
    """Sum the kernel taps of each column."""
    for i in range(out.shape[0]):
        total = 0.0
        for tap in range(i * taps, (i + 1) * taps):
            total += columns[tap]
        out[i] = total
