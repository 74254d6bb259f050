"""Inputs that are redundant: channels equal or constant, sums that do not change, constant matrices of lower rank."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from nets import TINY
from nets_more import floats
from nets_parts import Net, P
from neuralmech.discovery import walk
from neuralmech.discovery.discover import find_symmetries
from neuralmech.discovery.relations import RULES, mapped, none, without_constant
from oracle import check

T, PICKED = torch.tensor, torch.tensor([2, 0, 1, 2, 3])
REDUNDANT = {  # what a layer of h = relu(a(x)), 4 channels, reads: so many channels
    "repeated": (8, lambda s, h, x: torch.cat([h, h], 1)),
    "repeated, then bent": (8, lambda s, h, x: torch.tanh(torch.cat([h, h], 1) - 0.5)),
    "picked": (5, lambda s, h, x: h[:, PICKED]),
    "one and zeros beside": (7, lambda s, h, x: torch.cat([h, h.new_ones(8, 1), h.new_zeros(8, 2)], 1)),
    "constants, then bent": (6, lambda s, h, x: torch.tanh(torch.cat([h, h.new_ones(8, 2)], 1) - 0.5)),
    "padded with zeros": (6, lambda s, h, x: F.pad(h, (1, 1))),
    "padded with twos": (5, lambda s, h, x: F.pad(h, (1, 0), value=2.0)),
    "one number for all": (3, lambda s, h, x: h.mean(1, keepdim=True).expand(8, 3)),
    "a softmax": (4, lambda s, h, x: h.softmax(1)),
    "a softmax, taken out of one": (4, lambda s, h, x: 1 - 2 * h.softmax(1)),
    "a softmax times a gate": (4, lambda s, h, x: h.softmax(1) * x[:, :1]),
    "a mean taken out": (4, lambda s, h, x: h - h.mean(1, keepdim=True)),
    "a mean taken out of a pair": (8, lambda s, h, x: (lambda d: d - d.mean(1, keepdim=True))(h.repeat(1, 2))),
    "two that sum to zero": (4, lambda s, h, x: F.layer_norm(h, (4,), eps=TINY) + F.layer_norm(x, (4,), eps=TINY)),
    "one that sums to zero, one that does not": (4, lambda s, h, x: F.layer_norm(h, (4,), eps=TINY) + h),
    "multiples of what sums to zero": (4, lambda s, h, x: F.layer_norm(h, (4,), eps=TINY) * T([1.0, 2.0, 4.0, 8.0])),
    "a channel times zero": (4, lambda s, h, x: h * T([1.0, 0.0, 2.0, 1.0]) + h[:, 1:2] * T([1.0, 0.0, 0.0, 0.0])),
    "a matrix of lower rank": (3, lambda s, h, x: h @ T([[1.0, 2, 3], [2, 4, 6], [1, 0, 1], [0, 1, 1]]).to(h)),
    "a layer of lower rank": (
        3, lambda s, h, x: F.linear(h, T([[1.0, 2, 0, 1], [2, 4, 0, 2], [0, 1, 1, 0]]).to(h), T([1.0, 0, 3]).to(h))
    ),
    "a layer whose rows are equal": (4, lambda s, h, x: torch.tanh(F.linear(h, s.w.repeat(2, 1)))),
    "a layer whose rows are equal, biases not": (4, lambda s, h, x: torch.tanh(F.linear(h, s.w.repeat(2, 1), s.c))),
    "averaged": (4, lambda s, h, x: F.avg_pool1d(h, 2, 1)[:, [0, 1, 2, 2]]),
    "a mean over places": (5, lambda s, h, x: torch.stack([h, h * 2], 1)[..., [0, 0, 1, 2, 3]].mean(1)),
    "a sum over places, with ones": (
        5, lambda s, h, x: torch.cat([torch.stack([h, h * 2], 1), h.new_ones(8, 2, 1)], 2).sum(1)
    ),
    "a column picked from rows": (4, lambda s, h, x: h.sum(1)[:, None, None].expand(8, 4, 4)[:, 1]),
    "some of what is repeated": (5, lambda s, h, x: torch.cat([h, h], 1)[:, [0, 4, 1, 2, 3]]),
    "repeated, then bent at random": (8, lambda s, h, x: F.rrelu(torch.cat([h, h], 1) - 0.5, training=True)),
    "both layers read it": (4, lambda s, h, x: h.softmax(1)),
}  # fmt: skip


@pytest.mark.parametrize("name", REDUNDANT)
def test_discovery_equals_the_numeric_null_space(name):
    channels, read = REDUNDANT[name]
    torch.manual_seed(0)

    def forward(s, x):
        h = read(s, torch.relu(s.a(x)), x)
        return s.head(torch.tanh(s.b(h)) + (s.b(x) if name.startswith("both") else 0))

    net = Net(forward, a=lambda: nn.Linear(4, 4), b=lambda: nn.Linear(channels, 3), head=lambda: nn.Linear(3, 3))
    if "rows are equal" in name:
        net.w, net.c = P(2, 4)(), P(4)()
    check(net, floats(8, 4))


def test_channels_repeated_by_known_numbers_are_seen_though_no_scale_passes():
    torch.manual_seed(0)
    net = Net(
        lambda s, x: s.head(torch.relu(s.a(x)).repeat_interleave(T([1, 2, 1, 2]), 1)),
        a=lambda: nn.Linear(4, 4),
        head=lambda: nn.Linear(6, 3),
    )
    _, shifts = check(net, floats(8, 4), complete=False)
    assert shifts == 6 + 1 + 2 * 2  # all logits alike; two pairs of equal channels, less what moves all logits alike


def test_a_relation_rule_that_fails_ends_nothing_but_relations(monkeypatch):
    def fails(*_):
        raise ValueError

    monkeypatch.setattr(walk, "STRICT", False)
    monkeypatch.setitem(RULES, "relu", fails)
    found = find_symmetries(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)), torch.randn(8, 4))
    assert found.sites == {"translation": {"2.weight": 4, "2.bias": 1}, "rescale": {"0 -> 2": 4}}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_relations_of_an_image_are_those_of_all_its_points(data):
    """M(h, 1) with h in an affine subspace, both at random: as many relations as the numeric rank leaves."""
    whole = st.integers(-2, 2)
    n, out, k = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)), data.draw(st.integers(0, 3))
    basis = np.array(data.draw(st.lists(st.lists(whole, min_size=n, max_size=n), min_size=k, max_size=k)))
    origin = np.array(data.draw(st.lists(whole, min_size=n, max_size=n)), dtype=float)
    matrix = np.array(data.draw(st.lists(st.lists(whole, min_size=n, max_size=n), min_size=out, max_size=out)), float)
    added = np.array(data.draw(st.lists(whole, min_size=out, max_size=out)), dtype=float)
    points = origin + np.random.default_rng(0).normal(size=(40, k)) @ basis.reshape(k, n)
    whole_space = mapped(sparse.coo_array(np.zeros((n, 0))), np.zeros(n), none(0))
    assert whole_space.shape[0] == n  # zero is no more than a point
    directions = sparse.coo_array(basis.reshape(k, n).T)
    mine = mapped(directions, origin, none(k))
    found = mapped(sparse.coo_array(matrix), added, mine).toarray()
    images = np.hstack([points @ matrix.T + added, np.ones((40, 1))])
    assert np.abs(images @ found.T).max(initial=0) < 1e-9
    assert found.shape[0] == np.linalg.matrix_rank(found) if found.size else True
    assert found.shape[0] == out + 1 - np.linalg.matrix_rank(images, tol=1e-8)
    zero = without_constant(sparse.csr_array(found)).toarray()
    assert not zero[:, -1].any()
