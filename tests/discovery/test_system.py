from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralmech.discovery import distinct, scale_sums
from neuralmech.discovery.distinct import distinct_pairs, distinct_rows
from neuralmech.discovery.scale_sums import Sums
from neuralmech.discovery.system import System

pairs = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=5)
rows = st.lists(st.tuples(*[st.integers(0, 7)] * 3, *[st.sampled_from([-2, -1, 1, 2])] * 3), max_size=6)


@settings(max_examples=200, deadline=None)
@given(pairs, rows)
def test_null_space_is_the_dense_one(equal, sums):
    """Unknown 0 is zero; the oracle is numpy's rank of the stacked dense constraints."""
    system = System()
    ids = np.concatenate([[0], system.new(7)])
    dense = [np.eye(8)[0]]
    for a, b in equal:
        system.equate(ids[a], ids[b])
        dense.append(np.eye(8)[a] - np.eye(8)[b])
    for a, b, c, x, y, z in sums:
        system.add_rows(np.array([[a, b, c]]), [x, y, z])
        dense.append(x * np.eye(8)[a] + y * np.eye(8)[b] + z * np.eye(8)[c])
    solution = system.solve()
    basis = solution.values(ids).toarray()
    assert np.abs(np.stack(dense) @ basis).max(initial=0) < 1e-9
    assert solution.dimension == 8 - np.linalg.matrix_rank(np.stack(dense))
    assert np.linalg.matrix_rank(basis) == solution.dimension if solution.dimension else True


def test_reasons_follow_chains_of_equals():
    system = System()
    a, b, c, d = system.new(4)
    system.equate(a, b)
    system.zero(np.array([b]), "first")
    system.equate(c, d)
    system.equate(d, a, "second")
    assert system.why_zero(np.array([a])) == ["first"]
    assert system.why_zero(np.array([c])) == ["second"]


@pytest.mark.parametrize("largest", [0, 5, 2**40])
def test_distinct_pairs_are_those_of_numpy(largest):
    a, b = np.random.default_rng(0).integers(largest + 1, size=(2, 200))
    np.testing.assert_array_equal(distinct_pairs(a, b), np.unique(np.stack([a, b]), axis=1))
    assert distinct_pairs(a[:0], b[:0]).shape == (2, 0)


@pytest.mark.parametrize("largest", [1, 2, 40, 2**62])
@pytest.mark.parametrize("width", [1, 2, 5, 70])
def test_distinct_rows_are_those_of_numpy(largest, width):
    random = np.random.default_rng(width)
    rows = random.integers(-1, largest, size=(60, width))[random.integers(60, size=200)]
    rows[:, : width // 2] = rows[0, : width // 2]
    found, which = distinct_rows(rows)
    expected, places = np.unique(rows, axis=0, return_inverse=True)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(which, places.ravel())
    empty, none = distinct_rows(rows[:0])
    assert (empty.shape, none.shape) == ((0, width), (0,))


def test_rows_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(distinct, "mixed", lambda numbers, places: np.zeros(numbers.shape, dtype=np.uint64))
    found, which = distinct_rows(np.array([[2, 1], [1, 7], [2, 1]]))
    assert found.tolist() == [[1, 7], [2, 1]]
    assert which.tolist() == [1, 0, 1]


shares = st.sampled_from([-2, -1, 1, 2, 3, Fraction(1, 2), Fraction(-1, 3)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), shares, shares), max_size=8))
def test_equal_sums_are_one_unknown_and_others_are_not(steps):
    """Against vectors of fractions: each unknown's own, and those of sums of sums."""
    system = System()
    ids, sums = system.new(4).tolist(), Sums(system)
    vectors = [tuple(Fraction(int(i == j)) for j in range(4)) for i in range(4)]
    known = {0: (Fraction(0),) * 4} | dict(zip(ids, vectors, strict=True))
    for a, b, x, y in steps:
        names = list(known)
        a, b = names[a % len(names)], names[b % len(names)]
        made = sums.of(np.array([[a, b], [b, a], [0, a]]), [x, y])
        for new, (p, q) in zip(made.tolist(), ((a, b), (b, a), (0, a)), strict=True):
            vector = tuple(x * u + y * v for u, v in zip(known[p], known[q], strict=True))
            assert known.setdefault(new, vector) == vector
    assert len(set(known.values())) == len(known)
    solution = system.solve()
    basis = solution.values(np.array(list(known))).toarray()
    expected = np.array([[float(c) for c in v] for v in known.values()])
    assert solution.dimension == np.linalg.matrix_rank(np.hstack([basis, expected])) == 4


def test_sums_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(scale_sums, "mixed", lambda numbers, places: np.zeros(numbers.shape, dtype=np.uint64))
    system = System()
    a, b, c = system.new(3)
    sums = Sums(system)
    first, other = sums.of(np.array([[a, b], [a, c]]), [1, 1])
    again = sums.of(np.array([[a, c], [b, a]]), [1, 1])
    assert first != other
    values = system.solve().values(np.array([*again, a, b, c])).toarray()
    np.testing.assert_array_equal(values[:2], [values[2] + values[4], values[2] + values[3]])
