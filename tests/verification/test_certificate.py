"""The number of conservation laws, counted from brackets of gradients, against what discovery finds in graphs."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets import NETS
from nets_more import MORE
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from neuralmech.symmetry.family import Family, Term
from neuralmech.verification.certificate import certify
from neuralmech.verification.norms import PlainNorms

QUICK = [
    "relu_mlp", "no_bias", "deep_linear", "tanh_barrier", "layer_norm", "squared", "shared", "parallel", "unused",
    "frozen_middle", "residual", "leaky_at_random", "conv1d", "chunked_glu", "temperature",
    "divided by a temperature", "a temperature for each class", "glu of channels", "transposed_weights", "powers",
    "cosine_head", "dense_block", "transposed", "batch_norm_plain", "stochastic", "rms_norm",
]  # fmt: skip
SLOW = [
    "glu", "pools", "attention", "attention_by_hand", "attention_grouped", "rms_norm_by_hand", "language_model_tied",
    "projected_bias", "group_norm", "instance_norm", "conv3d", "shuffled", "weight_norm", "spectral_norm",
    "squared_branch",
]  # fmt: skip


def counted(name):
    torch.manual_seed(0)
    if name in NETS:
        build, shape, _ = NETS[name]
        model, x = build().double(), torch.randn(*shape, dtype=torch.float64)
    else:
        build, inputs = MORE[name]
        model, x = build().double(), inputs(torch.Generator().manual_seed(0))
    logits = model(x)
    labels = (logits.shape[0], *logits.shape[2:]) if logits.dim() == 4 else logits.shape[:-1]
    y = torch.randint(logits.shape[1 if logits.dim() == 4 else -1], labels)
    return certify(model, x, y, find_symmetries(model, x))


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_what_is_found_is_all_there_is(name):
    found = counted(name)
    assert found.agrees, found


def test_a_tanh_net_has_none():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(6, 3)
    found = certify(net, x, torch.randn(6, 2), find_symmetries(net, x, "mse"), "mse")
    assert (found.found, found.exist, found.parameters) == (0, 0, 26)


@pytest.mark.parametrize(
    ("sizes", "entries", "independent"), [((2, 4, 1), 10, 9), ((1, 5, 1), 15, 9), ((3, 2, 2), 3, 3)]
)
def test_entries_of_an_over_wide_pair_depend_on_each_other(sizes, entries, independent):
    """The rank of Q is at most that of both weights."""
    torch.manual_seed(0)
    a, b, c = sizes
    net = nn.Sequential(nn.Linear(a, b, bias=False), nn.Linear(b, c, bias=False))
    x = torch.randn(4, a)
    claims = find_symmetries(net, x, "mse")
    assert claims.dependent == ({} if entries == independent else {"0 -> 1": (entries, independent)})
    found = certify(net, x, torch.randn(4, c), claims, "mse")
    assert (found.found, found.exist) == (independent, independent)
    assert found.agrees


def test_a_law_that_is_no_charge_is_counted():
    """relu(Wx) + b∘b before a softmax: a common shift of b∘b is no linear motion of b; Σ log|b_i| is conserved."""

    class Squared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4, bias=False), nn.Parameter(torch.rand(4) + 0.5)

        def forward(self, x):
            return torch.tanh(self.a(x)) + self.b * self.b

    torch.manual_seed(0)
    net, x, y = Squared().double(), torch.randn(6, 3).double(), torch.randint(4, (6,))
    found = certify(net, x, y, find_symmetries(net, x))
    assert (found.found, found.exist, found.agrees) == (0, 1, False)
    F.cross_entropy(net(x), y).backward()
    assert abs(float((net.b.grad / net.b.detach()).sum())) < 1e-14 * float(net.b.grad.norm())


def test_a_false_claim_is_told():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(6, 3)
    claims = find_symmetries(net, x)
    from dataclasses import replace

    from scipy import sparse

    one = Term("0.weight", "rows", sparse.csr_array(np.eye(4)[:1]), np.array([0]))
    wrong = replace(claims, families={**claims.families, "scale": Family("scale", (one,), ("0",), np.array([0]))})
    found = certify(net, x, torch.randint(2, (6,)), wrong)
    assert (found.found, found.exist) == (10, 9)
    assert "a claim is false" in str(found)


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (lambda x: F.layer_norm(x, (4,), torch.ones(4).double(), torch.ones(4).double()), (3, 4)),
        (lambda x: F.rms_norm(x, (4,)), (3, 4)),
        (lambda x: F.batch_norm(x, None, None, None, None, training=True), (6, 3)),
        (lambda x: F.instance_norm(x), (2, 3, 5)),
        (lambda x: F.group_norm(x, 2, torch.linspace(1, 2, 4).double()), (2, 4, 3)),
    ],
    ids=["layer", "rms", "batch", "instance", "group"],
)
def test_norms_written_out_are_the_norms_with_a_third_derivative(norm, shape):
    """Against central differences of the second; of torch's own layer norm the third is wrong (2.14)."""
    generator = torch.Generator().manual_seed(0)
    x, along, weight = (torch.randn(*shape, dtype=torch.float64, generator=generator) for _ in range(3))

    def derivative(at, order):
        at = at.clone().requires_grad_()
        value = (norm(at) ** 3 * weight).sum()
        for _ in range(order):
            (slope,) = torch.autograd.grad(value, at, create_graph=True)
            value = (slope * along).sum()
        return value.item()

    plain = derivative(x, 1)
    with PlainNorms():
        assert derivative(x, 1) == pytest.approx(plain, rel=1e-10)
        step = 1e-4
        by_differences = (derivative(x + step * along, 2) - derivative(x - step * along, 2)) / (2 * step)
        assert derivative(x, 3) == pytest.approx(by_differences, rel=1e-4)


def test_a_large_model_is_refused():
    net, x = nn.Linear(40, 40), torch.randn(4, 40)
    with pytest.raises(UserError, match="up to 1,000 parameters, this one has 1,640"):
        certify(net, x, torch.randint(40, (4,)), find_symmetries(net, x))
