"""Random small nets of parts that a trace misreads easily: masks, indices, choices, zeros, constants, cut gradients.

Nothing false may be claimed of them, by gradients and by finite transformations; what is missed is not counted.
"""

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nets import TINY

WIDTH = 4


def _attention(x, mask, **options):
    return F.scaled_dot_product_attention(x[None], x[None], x[None], attn_mask=mask, **options)[0]


def _norm(s, x, dim, weight=None):
    """A norm as torch has it in the trace, and written out else.

    Torch multiplies a mean by γ/√eps and takes the product from the bias, which rounds a channel that is the same in
    all samples by 1e-16/√eps: there, γ is felt. Gradients of such a channel are rounded so in any case; the oracle sees
    that by another eps, which is why it is an attribute.
    """
    if torch.compiler.is_compiling() and dim == 0:
        return F.batch_norm(x, None, None, weight, weight, True, 0.1, s.eps)
    if torch.compiler.is_compiling():
        return F.layer_norm(x, (WIDTH,), eps=s.eps)
    away = x - x.mean(dim, keepdim=True)
    out = away / (away.square().mean(dim, keepdim=True) + s.eps).sqrt()
    return out if weight is None else out * weight + weight


def _table(s, x):
    n = len(x)
    return s.p.repeat(2)[(torch.arange(n)[:, None] - torch.arange(n)) % 8 % WIDTH]


ORDER = torch.tensor([2, 0, 3, 1])
TWICE = torch.tensor([0, 0, 1, 3])
MASK = torch.tensor([True, False, True, True])

# s has a layer `f` and a vector `p` of its own.
PARTS = {
    "layer": lambda s, x: s.f(x),
    "relu": lambda s, x: torch.relu(s.f(x)),
    "attention, table": lambda s, x: _attention(x, _table(s, x)),
    "attention, from the queries": lambda s, x: _attention(x, s.f(x) @ x.T),
    "attention, boolean": lambda s, x: _attention(x, x @ x.T >= -9),
    "attention, causal, scaled": lambda s, x: _attention(s.f(x), None, is_causal=True, scale=0.7),
    "channels in another order": lambda s, x: x[:, ORDER],
    "channels twice": lambda s, x: x.index_select(1, TWICE),
    "gathered": lambda s, x: x.gather(1, TWICE.expand(len(x), WIDTH)),
    "added at an index": lambda s, x: torch.zeros_like(x).index_add(1, TWICE, x),
    "scattered": lambda s, x: x.scatter_add(1, TWICE.expand(len(x), WIDTH), s.f(x)),
    "put at an index": lambda s, x: x.index_copy(1, ORDER, s.f(x)),
    "the largest's channel": lambda s, x: x * F.one_hot(x.argmax(1), WIDTH),
    "picked by the largest": lambda s, x: x + x.gather(1, x.argmax(1, keepdim=True)),
    "table by the largest": lambda s, x: x * s.p[x.argmax(1)][:, None],
    "in order": lambda s, x: x.sort(1)[0],
    "the two largest": lambda s, x: torch.cat([x.topk(2, dim=1)[0], x[:, :2]], 1),
    "less the largest": lambda s, x: x - x.max(1, keepdim=True)[0],
    "the larger of two": lambda s, x: torch.maximum(x, s.f(x)),
    "at random": lambda s, x: x[:, torch.randperm(WIDTH)],
    "a random mask": lambda s, x: x * (torch.rand_like(x) > 0.3),
    "gate at zero": lambda s, x: x * (x > 0),
    "gate at a number": lambda s, x: x * (x > 0.3),
    "gate of two": lambda s, x: torch.where(x > s.f(x), x, 0.5 * x),
    "gate of a parameter": lambda s, x: x * (s.p > 0.2),
    "signs": lambda s, x: x * torch.sign(s.f(x)),
    "zeros added": lambda s, x: x + torch.zeros_like(x),
    "zeros filled in": lambda s, x: torch.where(x[:, :1] > 0, x, 0.0),
    "zeros assigned": lambda s, x: torch.zeros_like(x).slice_scatter(s.f(x)[:, 1:], 1, 1),
    "masked": lambda s, x: x.masked_fill(MASK, 0.0),
    "masked by a parameter": lambda s, x: x.masked_fill(MASK, s.p[0]),
    "a number added": lambda s, x: x + 0.1,
    "a parameter added": lambda s, x: x + s.p,
    "times a parameter": lambda s, x: x * s.p,
    "times a mask": lambda s, x: F.linear(x, s.f.weight.tril(), s.f.bias),
    "times half a weight": lambda s, x: x @ (0.5 * s.f.weight).T,
    "times a weight and itself": lambda s, x: F.linear(x, s.f.weight + s.f.weight.T),
    "alpha": lambda s, x: torch.add(x, s.f(x), alpha=-0.5),
    "addmm, beta": lambda s, x: torch.addmm(s.p, x, s.f.weight, beta=0.5, alpha=2.0),
    "an odd power": lambda s, x: x.abs() ** 1.3,
    "a negative slope": lambda s, x: F.leaky_relu(x, -0.5),
    "clipped": lambda s, x: x.clamp(-0.5, 0.5),
    "a norm by hand": lambda s, x: x / (x.abs().sum(1, keepdim=True) + 1e-30),
    "the largest as norm": lambda s, x: x / x.norm(p=float("inf"), dim=1, keepdim=True),
    "a cut norm": lambda s, x: x / x.norm(dim=1, keepdim=True).detach(),
    "a cut gate": lambda s, x: x * s.f(x).detach(),
    "straight through": lambda s, x: x + (torch.round(x) - x).detach(),
    "means of neighbours": lambda s, x: F.avg_pool1d(x, 3, 1, 1),
    "softmax": lambda s, x: torch.softmax(x, 1),
    "residual": lambda s, x: x + torch.relu(s.f(x)),
    "layer norm": lambda s, x: _norm(s, x, 1),
    "batch norm": lambda s, x: _norm(s, x, 0, s.p),
}
programs = st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=4)


class Odd(nn.Module):
    """A layer, parts one after the other, a layer."""

    def __init__(self, names):
        super().__init__()
        self.first, self.last, self.names = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 3), names
        self.parts = nn.ModuleList(Part() for _ in names)

    def forward(self, x):
        x = self.first(x)
        for name, part in zip(self.names, self.parts, strict=True):
            x = PARTS[name](part, x)
        return self.last(x)


class Part(nn.Module):
    """What a part may use."""

    def __init__(self):
        super().__init__()
        self.f, self.p, self.eps = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.randn(WIDTH)), TINY
