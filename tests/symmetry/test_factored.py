"""Factored use of the generators against the matrix written out."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from nets import NETS
from nets_mixers import ALL
from neuralmech.discovery.discover import find_symmetries
from neuralmech.symmetry.factored import covered_entries, generator, inner_products, squared_lengths
from neuralmech.symmetry.family import Family, Term
from neuralmech.symmetry.group import Symmetries


def example(inputs):
    generator = torch.Generator().manual_seed(0)
    shape = isinstance(inputs, tuple)
    return torch.randn(inputs, generator=generator, dtype=torch.float64) if shape else inputs(generator)


def overlapping():
    """Rows and columns of one weight, entries of another and a grouped one in the same charges; some cancel."""

    def rows(values):
        return sparse.csr_array(np.array(values, dtype=float))

    first = np.array([2, 0])
    terms = (
        Term("a", "rows", rows([[1, 2, 0], [0, 1, 1]]), first),
        Term("a", "columns", rows([[-1, 0, 3, 0], [0, -1, -1, -1]]), first),
        Term("g", "rows", rows([[0, 1, 0, 1], [0, 0, 0, 0]]), first, 1, 2),
        Term("g", "columns", rows([[-1, 0, 0, 0], [0, 0, 0, 2]]), first, 1, 2),
        Term("b", "entries", rows([[0, 0, 1], [0, 5, 0]]), np.array([1, 2])),
    )
    shapes = {"idle": (2,), "a": (3, 4), "b": (3,), "g": (4, 2, 2)}
    return Symmetries({"rescale": Family("rescale", terms, ("s",) * 3, np.arange(3))}, shapes, {}, ())


@pytest.mark.parametrize("name", [*NETS, *ALL, "overlapping"])
def test_the_factored_forms_are_those_of_the_matrix(name):
    if name == "overlapping":
        found = overlapping()
    else:
        build, inputs = (NETS.get(name) or ALL[name])[:2]
        torch.manual_seed(0)
        found = find_symmetries(build().double(), example(inputs))
    covered = np.zeros(sum(int(np.prod(s)) for s in found.shapes.values()), dtype=bool)
    random = np.random.default_rng(0)
    for label, matrix in found.generators().items():
        family, vector = found.families[label], random.normal(size=matrix.shape[1])
        np.testing.assert_allclose(inner_products(family, found.shapes, vector), matrix @ vector, atol=1e-12)
        squares = squared_lengths(family, found.shapes, vector**2)
        np.testing.assert_allclose(squares, matrix.power(2) @ vector**2, rtol=1e-12, atol=1e-12)
        for charge in random.choice(len(family), min(5, len(family)), replace=False).tolist():
            np.testing.assert_array_equal(generator(family, found.shapes, charge), matrix[[charge]].toarray()[0])
        covered |= (abs(matrix) > 0).sum(axis=0) > 0
    masks = dict(covered_entries(found.families.values(), found.shapes))
    parts = [masks.get(p, np.zeros(int(np.prod(s)), dtype=bool)) for p, s in found.shapes.items()]
    np.testing.assert_array_equal(np.concatenate(parts), covered)
    assert found.covered_parameters() == covered.sum()


def test_a_wide_layer_takes_little_memory():
    import tracemalloc

    net = nn.Sequential(nn.Linear(3000, 500, bias=False), nn.ReLU(), nn.Linear(500, 1000, bias=False))
    found = find_symmetries(net, torch.randn(2, 3000))
    tracemalloc.start()
    assert found.covered_parameters() == 2_000_000
    assert tracemalloc.get_traced_memory()[1] < 3e6  # a bool for each entry of the larger layer: 1.5 MB
    vector = np.ones(2_000_000)
    assert np.allclose(inner_products(found.families["rescale"], found.shapes, vector), 3000 - 1000)
    assert np.allclose(squared_lengths(found.families["rescale"], found.shapes, vector), 3000 + 1000)
    assert tracemalloc.get_traced_memory()[1] < 40e6  # written out, 2 million entries take 32 MB, and 100 to make
    tracemalloc.stop()
