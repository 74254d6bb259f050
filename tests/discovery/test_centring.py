"""Means taken out by hand, and weights whose input sums to zero, against the numeric null space."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets import TINY
from nets_more import Net, floats
from neuralmech.discovery.discover import find_symmetries
from oracle import check


def plain(x):
    return F.layer_norm(x, x.shape[-1:], eps=TINY)


def centred(x, dim=-1):
    return x - x.mean(dim, keepdim=True)


def by_hand(x):
    return centred(x) / x.std(-1, keepdim=True)


NETS = {
    "LayerNorm, head": lambda s, x: s.head(plain(s.a(x))),
    "LayerNorm, hidden": lambda s, x: s.head(F.leaky_relu(s.b(plain(s.a(x))))),
    "LayerNorm with a weight": lambda s, x: s.head(F.leaky_relu(s.b(s.norm(s.a(x))))),
    "two heads": lambda s, x: (lambda h: s.head(h) + s.other(h))(plain(s.a(x))),
    "a mean by hand": lambda s, x: s.head(torch.relu(centred(s.a(x)))),
    "a mean by hand, head": lambda s, x: s.head(centred(s.a(x).abs())),
    "a mean over the batch": lambda s, x: s.head(centred(s.a(x), 0).abs()),
    "a mean read elsewhere, too": lambda s, x: (
        lambda h, m: s.head(torch.tanh(h - m) * m)
    )(s.a(x), s.a(x).mean(1, keepdim=True)),
    "twice a mean": lambda s, x: (lambda h: s.head(torch.tanh(h - 2 * h.mean(1, keepdim=True))))(s.a(x)),
    "the mean of something else": lambda s, x: s.head(torch.tanh(s.a(x) - s.b(x).mean(1, keepdim=True))),
    "a deviation by hand": lambda s, x: s.head(by_hand(s.a(x))),
    "with a variance": lambda s, x: (
        lambda h: s.head(torch.relu(centred(h) * torch.rsqrt(h.var(-1, unbiased=False, keepdim=True))))
    )(s.a(x)),
    "times a number for each sample": lambda s, x: s.head(F.leaky_relu(s.b(plain(s.a(x)) * x[:, :1] / 3))),
    "times a number for each channel": lambda s, x: s.head(F.leaky_relu(s.b(plain(s.a(x)) * x))),
    "a sum": lambda s, x: s.head(F.leaky_relu(s.b(plain(s.a(x)) - centred(x.abs())))),
    "one summand of two": lambda s, x: s.head(F.leaky_relu(s.b(plain(s.a(x)) + x))),
    "a layer that reads something else, too": lambda s, x: s.head(F.leaky_relu(s.b(plain(s.a(x))) + s.b(x).abs())),
    "a weight read as it is, too": lambda s, x: s.head(F.leaky_relu(s.b(plain(s.a(x))) + s.b.weight[0])),
    "two uses": lambda s, x: s.head(F.leaky_relu(s.b(plain(s.a(x))) + s.b(plain(x.abs())).abs())),
    "half of the channels": lambda s, x: s.small(plain(s.a(x))[:, :2]),
    "after dropout of channels": lambda s, x: s.head(F.dropout(plain(s.a(x)), 0.5)),
}  # fmt: skip


# What is not claimed: shifts that a mean of other things takes out, rows of a weight of which one is read as it is.
INCOMPLETE = ("the mean of something else", "a weight read as it is, too")


def build(name):
    torch.manual_seed(0)
    wanted = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "norm": nn.LayerNorm(4, eps=TINY), "head": nn.Linear(4, 3)}
    wanted |= {"other": nn.Linear(4, 3), "small": nn.Linear(2, 3)}
    net = Net(NETS[name])
    for part in set(NETS[name].__code__.co_names) | {c for k in NETS[name].__code__.co_consts if hasattr(k, "co_names")
                                                     for c in k.co_names}:  # fmt: skip
        if part in wanted:
            setattr(net, part, wanted[part])
    return net


@pytest.mark.parametrize("name", NETS)
def test_discovery_equals_the_numeric_null_space(name):
    check(build(name), floats(12, 4), complete=name not in INCOMPLETE)


def test_a_frozen_weight_does_not_move():
    net = build("LayerNorm, hidden")
    net.b.weight.requires_grad_(False)
    check(net, floats(12, 4))


def test_charges_of_a_head_are_numbered_and_counted_once():
    net = build("LayerNorm, head")
    found = find_symmetries(net, torch.randn(2, 4))
    family = found.families["translation"]
    mine = [c for s, c in zip(family.sites, family.channels.tolist(), strict=True) if s == "head.weight"]
    assert mine == [0, 1, 2, 3, 4, 5]  # a column for all classes alike, a row for all columns alike less one
