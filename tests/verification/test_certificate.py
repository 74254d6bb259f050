"""The number of conservation laws, counted from brackets of gradients, against what discovery finds in graphs."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets import NETS
from nets_mixers import ALL
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from neuralmech.symmetry.family import Family, Term
from neuralmech.symmetry.matrix import matrix_families
from neuralmech.verification.certificate import certify
from neuralmech.verification.norms import PlainNorms

QUICK = [
    "no_bias", "deep_linear", "tanh_barrier", "layer_norm", "squared", "shared", "parallel", "unused", "frozen_middle",
    "leaky_at_random", "temperature", "divided by a temperature", "a temperature for each class", "glu of channels",
    "transposed_weights", "batch_norm_plain", "stochastic", "mixer_no_bias", "spectral_norm_hook",
]  # fmt: skip
# `discovery/test_discover.py` has the null spaces of the gradients of these in the quick suite, too.
SLOW = [
    "relu_mlp", "residual", "conv1d", "chunked_glu", "powers", "cosine_head", "dense_block", "transposed", "rms_norm",
    "mixer_of_two", "mixer_flattened", "projected_tokens",
    "glu", "pools", "attention", "attention_by_hand", "attention_grouped", "rms_norm_by_hand", "language_model_tied",
    "projected_bias", "group_norm", "instance_norm", "conv3d", "shuffled", "weight_norm", "spectral_norm",
    "squared_branch",
]  # fmt: skip


def made(name):
    """A net, a batch and its labels."""
    torch.manual_seed(0)
    if name in NETS:
        build, shape, _ = NETS[name]
        model, x = build().double(), torch.randn(*shape, dtype=torch.float64)
    else:
        build, inputs = ALL[name]
        model, x = build().double(), inputs(torch.Generator().manual_seed(0))
    with torch.no_grad():  # a hook keeps what it computes
        logits = model(x)
    labels = (logits.shape[0], *logits.shape[2:]) if logits.dim() == 4 else logits.shape[:-1]
    return model, x, torch.randint(logits.shape[1 if logits.dim() == 4 else -1], labels)


def counted(name):
    model, x, y = made(name)
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
    assert (found.found, found.exist, found.agrees, found.beyond) == (0, 1, False, ("b",))
    F.cross_entropy(net(x), y).backward()
    assert abs(float((net.b.grad / net.b.detach()).sum())) < 1e-14 * float(net.b.grad.norm())


def with_bias(layer):
    return torch.cat([layer.weight, layer.bias[:, None]], dim=1)


def centred_matrix(net):
    """Matrices G with G1 = 1 leave alone what the mixing of tokens adds to all channels: PQP of P = 1 − 11ᵀ/n."""
    stem, out = with_bias(net.stem), net.out.weight
    p = torch.eye(len(stem), dtype=torch.float64) - 1 / len(stem)
    return (p @ (stem @ stem.T - out.T @ out) @ p).flatten()


def imaginary_part(net):
    """Pairs that turn at the same rate are complex numbers, which complex matrices mix: Q is Hermitian."""
    q, k = with_bias(net.attend.q), with_bias(net.attend.k)
    sides = [low @ high.T for low, high in (q.chunk(2), k.chunk(2))]
    matrix = sides[0] - sides[1]
    return (matrix[0, 1] - matrix[1, 0])[None]


def mean_direction(net):
    """1ᵀQ1 of the embedding and what reads it beside the norm, which takes the mean out of the stream."""
    return (net.embed.weight.sum(1).square().sum() - net.up.weight.sum(1).square().sum())[None]


def affine_matrix(net):
    """A residual 1 + W of linear maps and what reads it: the motion W ↦ A(1 + W) − 1 is affine."""
    weight = torch.eye(3, dtype=torch.float64) + net.branch.weight
    return (weight @ weight.T - net.out.weight.T @ net.out.weight).flatten()


def shift_behind_weight_norm(net):
    """Of each column g v/|v| of a softmax's weight: what it conserves instead of Σ_i W_ij, as g and v move it."""
    of = net[2].parametrizations.weight
    g, v = of.original0, of.original1
    squares = v.square().sum(0)
    return (v.sum(0).abs() / squares.sqrt()).log() + g[0].square() / (2 * squares)


# Laws that discovery misses: how many are found and exist, of which layers the others are, and these.
MISSED = {
    "mixer": (9, 15, ("stem", "out"), centred_matrix),
    "linear_residual": (9, 15, ("branch", "out"), affine_matrix),
    "attention_rotary": (31, 32, ("attend.q", "attend.k"), imaginary_part),
    "language_model": (16, 17, ("embed", "up"), mean_direction),
    "weight_norm of the whole": (8, 13, ("2.parametrizations.weight",), shift_behind_weight_norm),
}
SMALLEST = "weight_norm of the whole"


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n != SMALLEST else n for n in MISSED])
def test_what_is_missed_is_counted_and_placed(name):
    found = counted(name)
    assert found.clear
    assert (found.found, found.exist, found.beyond) == MISSED[name][:3]
    assert str(found).endswith(f"; those not found are of {', '.join(found.beyond)}")


@pytest.mark.parametrize("name", MISSED)
def test_what_is_missed_is_a_law(name):
    """Gradients of the loss are orthogonal to those of the laws, which with those found span all that there are."""
    found, exist, _, laws = MISSED[name]
    model, x, y = made(name)
    claims, shapes = find_symmetries(model, x), {n: tuple(p.shape) for n, p in model.named_parameters()}
    parameters = list(model.parameters())
    flat = lambda grads: torch.cat([g.flatten() for g in grads]).numpy()  # noqa: E731
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            for p in parameters:
                p.normal_(std=0.7)
        logits = model(x)
        slope = flat(torch.autograd.grad(F.cross_entropy(logits.flatten(0, -2), y.flatten()), parameters))
        values = laws(model)
        rows = np.stack([
            flat(torch.autograd.grad(v, parameters, retain_graph=True, allow_unused=True, materialize_grads=True))
            for v in values
        ])  # fmt: skip
        assert (np.abs(rows @ slope) < 1e-13 * np.linalg.norm(rows, axis=1).max() * np.linalg.norm(slope)).all()
        theta = flat([p.detach() for p in parameters])
        known = [a.toarray() * (1 if n == "translation" else theta) for n, a in claims.generators().items()]
        for family in matrix_families(claims.families.values()):
            known += [(family.generator(shapes, c) @ theta)[None] for c in range(len(family))]
        known = np.concatenate(known)
        assert np.linalg.matrix_rank(known) == found
        assert np.linalg.matrix_rank(np.concatenate([known, rows])) == exist


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
