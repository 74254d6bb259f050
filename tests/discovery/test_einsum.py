"""Models written with einsum have the symmetries of those that are not."""

import pytest
import torch
from torch import nn

from nets_more import Net, floats
from neuralmech.discovery.discover import find_symmetries
from neuralmech.discovery.lowering import linear_map
from oracle import check


def attend(self, x):
    q, k, v = (layer(x).unflatten(-1, (2, 2)) for layer in (self.q, self.k, self.v))
    weights = torch.einsum("b s h d, b t h d -> b h s t", q, k).softmax(-1)
    mixed = torch.einsum("bhst,bthd->bshd", weights, v)
    return self.o(mixed.flatten(2)).mean(1)


def attend_by_hand(self, x):
    q, k, v = (layer(x).unflatten(-1, (2, 2)).transpose(1, 2) for layer in (self.q, self.k, self.v))
    mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
    return self.o(mixed.transpose(1, 2).flatten(2)).mean(1)


def attention(forward):
    return Net(forward, **{name: nn.Linear(4, 4) for name in "qkv"}, o=nn.Linear(4, 3))


def matrices(self, x):
    """Rows first, columns first, the weight in front, and an output in another order."""
    h = torch.relu(torch.einsum("bti,oi->bto", x, self.a) + self.bias)
    h = torch.relu(torch.einsum("io,bti->bot", self.b, h))
    return self.head(torch.relu(torch.einsum("bct,oc->bot", h, self.c)).mean(2))


def heads_in_the_weight(self, x):
    h = torch.relu(torch.einsum("bi,ihd->bhd", x, self.a))
    return self.head(torch.relu(torch.einsum("bhd,hdo->bo", h, self.b)))


NETS = {
    "attention": lambda: attention(attend),
    "matrices": lambda: Net(
        matrices, a=torch.randn(3, 4), bias=torch.randn(3), b=torch.randn(3, 4), c=torch.randn(3, 4),
        head=nn.Linear(3, 3),
    ),
    "heads_in_the_weight": lambda: Net(
        lambda self, x: heads_in_the_weight(self, x[:, 0]), a=torch.randn(4, 2, 3), b=torch.randn(2, 3, 3),
        head=nn.Linear(3, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_discovery_equals_the_numeric_null_space(name):
    torch.manual_seed(0)
    check(NETS[name](), floats(5, 3, 4))


def test_heads_in_the_weight_may_be_mixed_and_shifted():
    """As with one linear layer for all heads: values and outputs of each, and the shift of all logits."""

    def attended(self, x):
        q, k, v = (torch.einsum("bti,ihd->bthd", x, w) for w in (self.q, self.k, self.v))
        weights = torch.einsum("bshd,bthd->bhst", q, k).softmax(-1)
        return torch.einsum("bthd,hdo->bto", torch.einsum("bhst,bthd->bshd", weights, v), self.o).mean(1)

    torch.manual_seed(0)
    net = Net(attended, **{name: torch.randn(4, 2, 2) for name in "qkv"}, o=torch.randn(2, 2, 3))
    check(net, floats(5, 3, 4))
    found = find_symmetries(net, torch.randn(2, 3, 4).double())
    assert found.sites["linear"] == {"q -> k [0]": 3, "q -> k [1]": 3, "o -> v [0]": 3, "o -> v [1]": 3}
    assert found.sites["translation"] == {"o": 4}


def test_attention_has_the_matrix_valued_charges_of_its_other_spelling():
    found, wanted = (find_symmetries(attention(forward), torch.randn(2, 3, 4)) for forward in (attend, attend_by_hand))
    assert len(wanted.families["linear"]) == 4 * 3
    assert found.sites == wanted.sites
    assert found.barriers == wanted.barriers == ()
    for ours, theirs in zip(found.families["linear"].matrices, wanted.families["linear"].matrices, strict=True):
        for one, other in zip(ours.blocks, theirs.blocks, strict=True):
            assert (one.parameter, one.axis, one.sign) == (other.parameter, other.axis, other.sign)
            assert (one.index == other.index).all()


SHAPES = {"b": 2, "t": 3, "i": 4, "o": 5}


@pytest.mark.parametrize(
    ("equation", "is_map"),
    [
        ("bti,oi->bto", True),
        ("bti,io->tbo", True),
        ("io , bti -> obt", True),
        ("it,ib->bt", True),  # either is the matrix
        ("bi,iot->bot", True),
        ("bot,oti->bi", True),
        ("bi,oti->tbo", True),
        ("bot,oit->bi", True),  # the first is the matrix
        ("boti,oit->b", False),  # a vector of the weight is left
        ("bti,bot->bio", False),
        ("bti,oi->bo", False),  # a sum over t, too
        ("bti,bi->bt", False),
        ("bti,bo->btio", False),
        ("bii,oi->bo", False),
        ("bti,ii->bt", False),
        ("bti,i->bt", False),
        ("bti,oi", False),
        ("...i,oi->...o", False),
    ],
)
def test_linear_maps_are_told_from_other_sums(equation, is_map):
    letters = equation.replace(" ", "").partition("->")[0].replace("...", "b").split(",")
    operands = [torch.randn([SHAPES[c] for c in term]) for term in letters]
    out = linear_map(equation, operands)
    assert (out is not None) == is_map
    if out is not None:
        torch.testing.assert_close(out, torch.einsum(equation, *operands))
