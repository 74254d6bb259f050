"""Shifts that embeddings, position tables and tied heads exchange, against the numeric null space."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets import TINY
from nets_more import Net, tokens
from neuralmech.discovery.discover import find_symmetries
from oracle import check

PARTS = {
    "words": lambda: nn.Embedding(5, 4),
    "places": lambda: nn.Embedding(3, 4),
    "types": lambda: nn.Embedding(2, 4),
    "bias": lambda: nn.Parameter(torch.randn(4)),
    "norm": lambda: nn.LayerNorm(4, eps=TINY),
    "head": lambda: nn.Linear(4, 5),
}


def net(forward, names, **parts):
    torch.manual_seed(0)
    return Net(forward, **{name: PARTS[name]() for name in names.split() if name not in parts}, **parts).double()


def located(self, x):
    return self.words(x) + self.places(torch.arange(x.shape[1]))


def typed(self, x):
    return located(self, x) + self.types(x.roll(1, 0) % 2)  # another sample's tokens: nothing to do with its own


def biased(self, x):
    return torch.tanh(self.words(x) + self.bias)


COMPLETE = {  # in parentheses: the shifts beyond those of the head, of single tokens and of single places
    "positions (4 channels)": (lambda s, x: s.head(torch.tanh(located(s, x))), "words places head"),
    "norms (4 less 1)": (lambda s, x: s.head(torch.tanh(s.norm(located(s, x)))), "words places norm head"),
    "two tables (8)": (lambda s, x: s.head(torch.tanh(typed(s, x))), "words places types head"),
    "two tables, norms (8 less 2)": (
        lambda s, x: s.head(torch.tanh(s.norm(typed(s, x)))),
        "words places types norm head",
    ),
    "tied (4)": (lambda s, x: F.linear(torch.tanh(located(s, x)), s.words.weight), "words places"),
    "tied, norms (4)": (
        lambda s, x: F.linear(torch.tanh(s.norm(located(s, x))), s.words.weight),
        "words places norm",
    ),
    "tied, no positions (1)": (lambda s, x: F.linear(torch.tanh(s.norm(s.words(x))), s.words.weight), "words norm"),
    "a bias (4)": (lambda s, x: s.head(biased(s, x)), "words bias head"),
    "a bias at one of two places (0)": (lambda s, x: s.head(biased(s, x) + torch.tanh(s.words(x))), "words bias head"),
    "twice (0)": (lambda s, x: s.head(torch.tanh(s.words(x) - 2 * s.words(x.flip(1)))), "words head"),
    "scaled (4)": (
        lambda s, x: s.head(torch.tanh(2.0 * s.words(x) + s.places(torch.arange(3)))),
        "words places head",
    ),
}


@pytest.mark.parametrize("name", COMPLETE)
def test_exchanged_shifts_are_all_found(name):
    check(net(*COMPLETE[name]), tokens(6, 3))


def matrix(self, x):
    return F.one_hot(x, 5).to(self.head.weight).sqrt() @ self.words.weight


# What reads the table besides does not move with it, or its gradient leaves something out.
FALSE = {
    "read as it is": lambda s, x: s.head(biased(s, x)) + s.words.weight[:, 0],
    "read as it is before": lambda s, x: s.words.weight[:, 0] + s.head(biased(s, x)),
    "as a matrix": lambda s, x: s.head(biased(s, x) + matrix(s, x)),
    "as a matrix before": lambda s, x: s.head(torch.tanh(matrix(s, x)) + biased(s, x)),
    "as a head before": lambda s, x: F.linear(s.bias.expand(*x.shape, 4), s.words.weight) + s.head(biased(s, x)),
    "a hidden layer": lambda s, x: s.head(torch.tanh(F.linear(biased(s, x), s.words.weight))[..., :4]),
}
WORDS = torch.zeros(2, 3).long()
PARTIAL = {
    "padding": lambda: nn.Embedding(5, 4, padding_idx=1),
    "by frequency": lambda: nn.Embedding(5, 4, scale_grad_by_freq=True),
    "frozen": lambda: nn.Embedding.from_pretrained(torch.randn(5, 4), freeze=True),
}


@pytest.mark.parametrize("name", [*FALSE, *PARTIAL])
def test_a_table_that_something_else_reads_is_not_claimed_falsely(name):
    forward = FALSE.get(name, lambda s, x: s.head(biased(s, x)))
    parts = {"words": PARTIAL[name]()} if name in PARTIAL else {}
    model = net(forward, "words bias head", **parts)
    check(model, tokens(6, 3), complete=False)
    sites = find_symmetries(model, tokens(6, 3)(torch.Generator())).sites["translation"]
    assert not any("words.weight" in site and "bias" in site.replace("head.bias", "") for site in sites)


@pytest.mark.parametrize("name", PARTIAL)
def test_a_table_whose_gradient_is_not_the_loss_s_has_no_charge_over_its_tokens(name):
    """Scales, mixing, and what one token exchanges with another table's: the sums want every token's gradient."""
    relu = net(lambda s, x: s.head(torch.relu(s.words(x))), "words head", words=PARTIAL[name]())
    check(relu, tokens(6, 3), complete=False)
    linear = find_symmetries(net(lambda s, x: s.head(s.words(x)), "words head", words=PARTIAL[name]()), WORDS)
    assert "linear" not in linear.sites
    both = net(
        lambda s, x: s.head(torch.tanh(s.words(x) + s.other(x))), "words head", words=PARTIAL[name](),
        other=nn.Embedding(5, 4),
    )  # fmt: skip
    check(both, tokens(6, 3), complete=False)


@pytest.mark.parametrize("name", ["padding", "by frequency"])
def test_two_tables_that_leave_out_the_same_exchange_each_token(name):
    model = net(
        lambda s, x: s.head(torch.tanh(s.words(x) + s.other(x))), "words head", words=PARTIAL[name](),
        other=PARTIAL[name](),
    )  # fmt: skip
    check(model, tokens(6, 3), complete=False)
    assert find_symmetries(model, WORDS).sites["translation"]["words.weight - other.weight"] == 20


def test_the_exchange_is_named_and_counted_by_channel():
    model = net(lambda s, x: s.head(torch.tanh(located(s, x))), "words places head")
    found = find_symmetries(model, WORDS)
    assert found.sites["translation"] == {"words.weight - places.weight": 4, "head.weight": 4, "head.bias": 1}
    charges = [s == "words.weight - places.weight" for s in found.families["translation"].sites]
    exchange = found.generators()["translation"].toarray()[charges]
    words, places = exchange[:, :20].reshape(4, 5, 4), exchange[:, 20:32].reshape(4, 3, 4)
    assert torch.equal(torch.tensor(words), torch.eye(4).double()[:, None, :].expand(4, 5, 4))
    assert torch.equal(torch.tensor(places), -torch.eye(4).double()[:, None, :].expand(4, 3, 4))
    assert not exchange[:, 32:].any()
