"""Weights that norms bind together: one unknown for each slice, with the claims of one for each entry."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import oracle
from neuralmech.discovery import discover, walk
from neuralmech.discovery.discover import find_symmetries
from neuralmech.discovery.narrowing import kept_dims
from neuralmech.discovery.system import System
from neuralmech.discovery.trace import trace

OVER = (1, 2, 3)


def by_hand(w):
    return (w - w.mean(OVER, keepdim=True)) / w.std(OVER, keepdim=True)


def flattened(w):
    f = w.view(len(w), -1)
    return ((f - f.mean(1, keepdim=True)) / f.var(1, keepdim=True).sqrt()).view_as(w)


def var_and_mean(w):
    v, m = torch.var_mean(w, dim=OVER, keepdim=True, unbiased=False)
    return (w - m) / v.sqrt()


def turned(w):
    x = w.permute(1, 2, 3, 0).reshape(-1, len(w))
    return F.batch_norm(x, None, None, training=True, eps=1e-30).view(*w.shape[1:], -1).permute(3, 0, 1, 2)


# How a weight is read, the dims along which log-scales may differ, and those along which shifts may.
READINGS = {
    "batch_norm": (
        lambda w: F.batch_norm(w.view(1, len(w), -1), None, None, training=True, eps=1e-30).view_as(w), (0,), (0,)
    ),
    "by_hand": (by_hand, (0,), (0,)),
    "flattened": (flattened, (0,), (0,)),
    "var_and_mean": (var_and_mean, (0,), (0,)),
    "turned": (turned, (0,), (0,)),
    "layer_norm": (lambda w: F.layer_norm(w, w.shape[1:], eps=0), (0,), (0,)),
    "lengths of rows": (lambda w: w / w.flatten(1).norm(dim=1).view(-1, 1, 1, 1), (0,), (0,)),
    "lengths of columns": (lambda w: w / torch.linalg.vector_norm(w, dim=(0, 2, 3), keepdim=True), (1,), (1,)),
    "length": (lambda w: w / w.norm(), (), ()),
    "mean alone": (lambda w: w * w.mean(OVER, keepdim=True), (0,), None),
    "two rows together": (lambda w: F.group_norm(w.view(1, len(w), -1), 2, eps=0).view_as(w), None, None),
    "some rows": (lambda w: torch.cat([by_hand(w[:2]), w[2:]]), None, None),
    "rows and columns": (lambda w: by_hand(w) / torch.linalg.vector_norm(w, dim=(0, 2, 3), keepdim=True), (), ()),
    "centred without a spread": (lambda w: F.rms_norm(w, w.shape[1:], eps=0), None, None),
}  # fmt: skip


class Convolution(nn.Module):
    def __init__(self, of, channels=4, kernel=3, groups=1, gain=True):
        super().__init__()
        self.of, self.groups = of, groups
        self.weight = nn.Parameter(torch.randn(channels, channels // groups, kernel, kernel))
        self.gain = nn.Parameter(torch.randn(channels, 1, 1, 1)) if gain else None
        self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x):
        weight = self.of(self.weight)
        weight = weight if self.gain is None else weight * (self.gain * 0.7)
        return F.conv2d(x, weight, self.bias, groups=self.groups)


def network(of, gain=True, groups=1):
    torch.manual_seed(0)
    middle = Convolution(of, groups=groups, gain=gain)
    return nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), middle, nn.ReLU(), nn.Flatten(), nn.Linear(4, 3)).double()


X = torch.randn(6, 2, 3, 3, dtype=torch.float64)


@pytest.mark.parametrize("name", READINGS)
def test_which_dims_stay_apart_is_told_from_the_graph(name):
    of, scales, shifts = READINGS[name]
    traced = trace(network(of), (X,), discover.RULED)
    assert kept_dims(traced, means=True).get("2.weight") == scales
    assert kept_dims(traced, means=False).get("2.weight") == shifts


@pytest.mark.parametrize(("gain", "groups"), [(True, 1), (False, 2)])
@pytest.mark.parametrize("name", READINGS)
def test_claims_are_those_of_one_unknown_for_each_entry(name, gain, groups, monkeypatch):
    monkeypatch.setattr(walk, "STRICT", True)
    model = network(READINGS[name][0], gain, groups)
    found = find_symmetries(model, X)
    monkeypatch.setattr(discover, "kept_dims", lambda *_, **__: {})
    whole = find_symmetries(model, X)
    assert (found.sites, found.uncovered, found.barriers) == (whole.sites, whole.uncovered, whole.barriers)
    for family, expected in whole.generators().items():
        both = np.concatenate([found.generators()[family].toarray(), expected.toarray()])
        assert np.linalg.matrix_rank(both) == len(expected.toarray())


@pytest.mark.parametrize("name", ["batch_norm", "by_hand", "lengths of rows", "mean alone"])
def test_claims_are_true_and_all_that_there_are(name):
    oracle.check(network(READINGS[name][0]), (6, 2, 3, 3))


def test_a_frozen_weight_stays_frozen():
    model = network(by_hand)
    model[2].weight.requires_grad_(False)
    found = find_symmetries(model, X)
    assert found.uncovered["2.weight"] == "frozen (requires_grad=False)"


def test_unknowns_are_as_many_as_rows_not_as_entries(monkeypatch):
    made, new = [], System.new
    monkeypatch.setattr(System, "new", lambda self, count: made.append(count) or new(self, count))
    with torch.device("meta"):
        model = Convolution(by_hand, channels=256)
    head = nn.Sequential(model, nn.Flatten(), nn.Linear(256, 3, device="meta"))
    found = find_symmetries(head, torch.randn(2, 256, 3, 3))
    assert found.sites["translation"]["0.weight"] == 256
    assert found.sites["scale"]["0"] == 256
    assert sum(made) < 20 * 256  # of 589,824 entries
