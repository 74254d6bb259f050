import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralmech.symmetry.distinct import distinct_pairs, distinct_rows
from neuralmech.symmetry.system import System

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
