"""Exact elimination against sympy's, at sizes and with numbers that 64 bits do not hold."""

from fractions import Fraction

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralmech.discovery.elimination import back_substitute, eliminate
from neuralmech.discovery.entries import Entries

UNKNOWNS = 9


def null_space(matrix):
    """Basis of the null space of a dense matrix of integers, one column for each free unknown, as fractions."""
    matrix = np.array(matrix, dtype=object)
    rows, columns = np.nonzero(matrix)
    values = matrix[rows, columns]
    if all(abs(int(v)) < 2**31 for v in values):
        values = values.astype(np.int64)
    count = matrix.shape[1]
    stages = eliminate(Entries.of(rows, columns, values), count)
    pivots = [p for stage in stages for p in stage.pivots.tolist()]
    assert len(set(pivots)) == len(pivots)
    free = np.setdiff1d(np.arange(count), pivots)
    found = back_substitute(stages, free, count)
    basis = np.full((count, free.size), Fraction(0), dtype=object)
    at = (found.unknowns, np.searchsorted(free, found.free))
    basis[at] = [Fraction(int(n), int(d)) for n, d in zip(found.numerators, found.denominators, strict=True)]
    assert np.array_equal(basis[free], np.eye(free.size, dtype=int))
    return basis


def rows_of(values):
    row = st.dictionaries(st.integers(0, UNKNOWNS - 1), values, min_size=1, max_size=4)
    return st.lists(row.map(lambda r: [r.get(j, 0) for j in range(UNKNOWNS)]), min_size=1, max_size=12)


@pytest.mark.parametrize("values", [st.sampled_from([-2, -1, 1, 3]), st.integers(-(2**40), 2**40)])
def test_null_space_is_sympys(values):
    @settings(max_examples=100, deadline=None)
    @given(rows_of(values))
    def check(rows):
        basis = null_space(rows)
        assert not (np.array(rows, dtype=object) @ basis).any()  # exactly
        assert basis.shape[1] == UNKNOWNS - sympy.Matrix(rows).rank()

    check()


def test_numbers_that_64_bits_do_not_hold():
    """2x₀ = x₁, 3x₁ = x₂, …: the last is the factorial of its place, far beyond 2⁶³."""
    n = 40
    chain = [[0] * k + [k + 2, -1] + [0] * (n - k - 1) for k in range(n)]
    basis = null_space(chain)
    assert basis.shape == (n + 1, 1)
    assert basis[-1, 0] / basis[0, 0] == sympy.factorial(n + 1)


def banded(blocks, width):
    """`blocks` copies of x_{c,p} + b_c = x_{0,p} + b_0: what a norm demands of tokens plus a bias."""
    tokens = width + width * np.arange(blocks)[:, None] + np.arange(width)[None, :]
    bias = np.broadcast_to(np.arange(width), tokens.shape)
    first = (tokens[:, :1] + 0 * tokens, bias * 0)
    entries = np.stack([tokens, bias, *first], axis=-1)[:, 1:].reshape(-1, 4)
    rows = np.repeat(np.arange(len(entries)), 4)
    return Entries.of(rows, entries.ravel(), np.tile([1, 1, -1, -1], len(entries))), width * (blocks + 1)


def test_many_rows_take_few_rounds_and_the_basis_is_local():
    """A row for each token and channel: a handful of rounds whatever their number, and no fill."""
    rounds, per_row = [], []
    for blocks in (50, 800):
        rows, count = banded(blocks, 24)
        stages = eliminate(rows, count)
        free = np.setdiff1d(np.arange(count), np.concatenate([s.pivots for s in stages]))
        assert free.size == 24 + blocks  # the bias, and one number for each token
        found = back_substitute(stages, free, count)
        rounds.append(len(stages))
        per_row.append(found.unknowns.size / count)
    assert rounds[1] <= rounds[0] + 1 <= 8
    assert max(per_row) <= 3


def test_chains_are_not_taken_link_by_link():
    n = 20_000
    rows = np.repeat(np.arange(n), 3)
    columns = (np.arange(n)[:, None] + np.arange(3)).ravel()
    stages = eliminate(Entries.of(rows, columns, np.tile([1, -2, 1], n)), n + 2)  # x is a line
    assert sum(s.pivots.size for s in stages) == n
    assert len(stages) < 100
