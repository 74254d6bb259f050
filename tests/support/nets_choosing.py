"""Nets that draw at random and nets that choose: orders, indices, routes, comparisons, steps."""

import random

import numpy as np
import torch
from torch.nn import functional as F

from nets import TINY
from nets_parts import AB, ABC, CONV, I, L, Nets, P, S, X

CHOOSING = Nets()


def between(function):
    """h between two layers."""
    return lambda s, x: s.b(function(s, s.a(x), x))


RANDOM = {
    "randperm of channels": lambda s, h, x: torch.relu(h)[:, torch.randperm(4)],
    "randperm of samples": lambda s, h, x: h + 0.3 * h[torch.randperm(8)],
    "index_select by randperm": lambda s, h, x: torch.relu(h).index_select(1, torch.randperm(4)),
    "randint": lambda s, h, x: torch.relu(h)[:, torch.randint(4, (4,))],
    "gather by randint": lambda s, h, x: torch.relu(h).gather(1, torch.randint(4, (8, 4))),
    "multinomial": lambda s, h, x: h[:, torch.multinomial(torch.ones(4), 4)],
    "argsort of noise": lambda s, h, x: torch.relu(h).gather(1, torch.rand(8, 4).argsort(1)),
    "a channel drawn": lambda s, h, x: h * F.one_hot(torch.randint(4, (8,)), 4),
    "noise added": lambda s, h, x: torch.relu(h) + torch.randn(8, 4).to(h),
    "learned noise": lambda s, h, x: torch.relu(h) + s.t * torch.randn(8, 4).to(h),
    "numpy's order": lambda s, h, x: torch.relu(h)[:, torch.from_numpy(np.random.permutation(4))],  # noqa: NPY002
    "numpy's order of samples": lambda s, h, x: h + h[torch.from_numpy(np.random.permutation(8))],  # noqa: NPY002
    "numpy's number": lambda s, h, x: torch.relu(h) + float(np.random.rand()),  # noqa: NPY002
    "numpy's choice": lambda s, h, x: h * (np.random.rand(4) > 0.5).tolist()[0],  # noqa: NPY002
    "python's order": lambda s, h, x: torch.relu(h)[:, random.sample(range(4), 4)],
    "python's branch": lambda s, h, x: torch.relu(h) if random.random() < 0.5 else torch.tanh(h),
    "python's branch, a layer left out": lambda s, h, x: torch.relu(s.n(h) if random.random() < 0.5 else h),
    "torch's branch": lambda s, h, x: torch.where(torch.rand(()) < 0.5, torch.relu(h), torch.tanh(h)),
    "alpha_dropout": lambda s, h, x: F.alpha_dropout(h, 0.4, training=True),
    "feature_alpha_dropout": lambda s, h, x: F.feature_alpha_dropout(h[..., None], 0.4, training=True)[..., 0],
    "gumbel_softmax": lambda s, h, x: F.gumbel_softmax(h),
    "gumbel_softmax, hard": lambda s, h, x: h * F.gumbel_softmax(h, hard=True),
    "bernoulli of h": lambda s, h, x: h * torch.bernoulli(h.sigmoid().float()),
    "poisson": lambda s, h, x: h + torch.poisson(h.abs().float()),
    "normal": lambda s, h, x: torch.normal(h.detach().float(), 1.0) * h,
    "uniform_": lambda s, h, x: h + torch.empty(8, 4).uniform_(),
    "cutmix": lambda s, h, x: torch.where(torch.rand(8, 1) < 0.5, h, h.flip(0)) + torch.rand(8, 1),
}
for name, function in RANDOM.items():
    CHOOSING.sound(f"random: {name}", between(function), X, **AB, t=P(4), n=L(4, 4))
for name, function in {
    "dropout": lambda s, h, x: F.dropout(torch.relu(h), 0.4),
    "dropout without training": lambda s, h, x: F.dropout(torch.relu(h), 0.4, training=False),
    "a mask of channels": lambda s, h, x: torch.relu(h) * (torch.rand(4) > 0.3),
    "a mask of samples": lambda s, h, x: torch.relu(h) * (torch.rand(8, 1) > 0.3),
    "bernoulli": lambda s, h, x: torch.relu(h) * torch.bernoulli(torch.full((8, 4), 0.6)).to(h),
    "noise times": lambda s, h, x: torch.relu(h) * torch.randn(8, 4).to(h),
    "noise around one": lambda s, h, x: torch.relu(h) * (1 + 0.3 * torch.randn(8, 4)),
    "dropout1d": lambda s, h, x: F.dropout1d(torch.relu(h)[..., None], 0.4)[..., 0],
}.items():
    CHOOSING.complete(f"random: {name}", between(function), X, **AB)
CHOOSING.complete("random: dropout2d", lambda s, x: s.b(F.dropout2d(torch.relu(s.a(x)), 0.4).mean((2, 3))), I, **CONV)
CHOOSING.sound(
    "random: fractional_max_pool2d",
    lambda s, x: s.b(F.fractional_max_pool2d(s.a(x), 2, 2, _random_samples=torch.rand(4, 3, 2).to(x)).mean((2, 3))),
    I,
    **CONV,
)

CHOICES = {  # of what h's values say: the gradient passes as if the choice were fixed
    "one_hot of argmax": lambda s, h, x: h * F.one_hot(h.argmax(1), 4),
    "one_hot of argmin": lambda s, h, x: h * F.one_hot(h.argmin(1), 4),
    "one_hot of the largest magnitude": lambda s, h, x: h * F.one_hot(h.abs().argmax(1), 4),
    "scatter at argmax": lambda s, h, x: h * torch.zeros_like(h).scatter(1, h.argmax(1, keepdim=True), 1.0),
    "topk's values": lambda s, h, x: h.topk(4, dim=1)[0],
    "topk of magnitudes": lambda s, h, x: h.gather(1, h.abs().topk(4)[1]),
    "topk kept": lambda s, h, x: torch.zeros_like(h).scatter(1, h.topk(2)[1], h.topk(2)[0]),
    "topk kept by a mask": lambda s, h, x: torch.where(h >= h.topk(2)[0][:, 1:], h, 0.0),
    "sort": lambda s, h, x: h.sort(1)[0],
    "sort over the batch": lambda s, h, x: h.sort(0)[0],
    "argsort": lambda s, h, x: h.gather(1, h.argsort(1)),
    "kthvalue": lambda s, h, x: h - h.kthvalue(2, dim=1, keepdim=True)[0],
    "median": lambda s, h, x: h - h.median(1, keepdim=True)[0],
    "nanmedian": lambda s, h, x: h - h.nanmedian(),
    "mode": lambda s, h, x: h - h.mode(1, keepdim=True)[0],
    "quantile": lambda s, h, x: h - h.quantile(0.3, dim=1, keepdim=True),
    "largest sample": lambda s, h, x: h + h[h.norm(dim=1).argmax()],
    "index by argmax": lambda s, h, x: h + s.t[h.argmax(1)][:, None],
    "embedding of argmax": lambda s, h, x: h + F.embedding(h.argmax(1), s.u),
    "nearest of a codebook": lambda s, h, x: h + s.u[torch.cdist(h, s.u).argmin(1)],
    "gate of one expert": lambda s, h, x: (
        F.softmax(h, 1).amax(1, keepdim=True) * torch.stack([h, s.n(h), -h, 2 * h])[h.argmax(1), torch.arange(8)]
    ),
    "order of a parameter": lambda s, h, x: torch.relu(h)[:, s.t.argsort()],
    "argmax of a parameter": lambda s, h, x: torch.relu(h) * h[:, s.t.argmax()][:, None],
    "mask of a parameter": lambda s, h, x: torch.relu(h) * (s.t > 0.2),
    "mask of its own weight": lambda s, h, x: F.linear(x, s.a.weight * (s.a.weight.abs() > 0.4), s.a.bias).relu(),
    "masked largest": lambda s, h, x: h * (h == h.amax(1, keepdim=True)),
    "masked largest of the batch": lambda s, h, x: h * (h >= h.amax(0)),
    "cummax": lambda s, h, x: h.cummax(1)[0],
    "cummax's indices": lambda s, h, x: h.gather(1, h.cummax(1)[1]),
    "bucketize": lambda s, h, x: h * torch.bucketize(h, torch.tensor([-0.5, 0.5])),
    "searchsorted": lambda s, h, x: h * torch.searchsorted(torch.tensor([-0.5, 0.5]).to(h), h.contiguous()),
    "long()": lambda s, h, x: h + s.t[h.long().clamp(0, 3)],
    "max over channels, index used": lambda s, h, x: h + s.t[h.max(1)[1]][:, None],
    "unfold of sorted": lambda s, h, x: h.sort(1, descending=True)[0].unfold(1, 2, 1).mean(2).repeat(1, 2)[:, :4],
}
STEPS = {
    "h > 0.3": lambda s, h, x: h * (h > 0.3),
    "h > 0.3, cast": lambda s, h, x: h * (h > 0.3).to(h.dtype),
    "h.gt(c).float()": lambda s, h, x: h * h.gt(0.3).float(),
    "|h| < 1": lambda s, h, x: h * (h.abs() < 1),
    "h > another": lambda s, h, x: h * (h > s.c(x)),
    "h > itself moved": lambda s, h, x: h * (h > h.roll(1, 1)),
    "h > its mean": lambda s, h, x: h * (h > h.mean(1, keepdim=True)),
    "h > a parameter": lambda s, h, x: h * (h > s.t),
    "h > data": lambda s, h, x: h * (h > x[:, :1]),
    "one channel > c": lambda s, h, x: torch.relu(h) * (h[:, :1] > 0.2),
    "another > c": lambda s, h, x: torch.relu(h) * (s.c(x) > 0.2),
    "not h > c": lambda s, h, x: h * ~(h > 0.3),
    "1 - (h > c)": lambda s, h, x: h * (1 - (h > 0.3).to(h)),
    "both": lambda s, h, x: h * ((h > 0.3) & (h < 1.5)),
    "any": lambda s, h, x: torch.relu(h) * (h > 0.8).any(1, keepdim=True),
    "count": lambda s, h, x: h * (h > 0.3).sum(1, keepdim=True),
    "where h > c": lambda s, h, x: torch.where(h > 0.3, h, 0.0),
    "where h > c, two slopes": lambda s, h, x: torch.where(h > 0.3, h, 0.1 * h),
    "where h > c, another": lambda s, h, x: torch.where(h > 0.3, h, s.c(x)),
    "masked_fill where h < c": lambda s, h, x: h.masked_fill(h < 0.3, 0.0),
    "sign of another": lambda s, h, x: torch.relu(h) * s.c(x).sign(),
    "sign of h - c": lambda s, h, x: h * (h - 0.3).sign(),
    "round": lambda s, h, x: h * h.round(),
    "round added": lambda s, h, x: torch.relu(h) + h.round(),
    "floor": lambda s, h, x: h - h.floor(),
    "ceil": lambda s, h, x: h * h.ceil(),
    "trunc": lambda s, h, x: h * h.trunc(),
    "frac": lambda s, h, x: h * h.frac(),
    "fmod": lambda s, h, x: torch.fmod(h, 0.7),
    "remainder": lambda s, h, x: torch.remainder(h, 0.7),
    "floor division": lambda s, h, x: h * (h.detach() // 0.3),
    "heaviside": lambda s, h, x: h * torch.heaviside(h.detach() - 0.3, h.new_ones(())),
    "isclose": lambda s, h, x: h * ~torch.isclose(h, torch.zeros_like(h), atol=0.3),
    "int of h": lambda s, h, x: h * h.to(torch.int64),
    "fake_quantize": lambda s, h, x: torch.fake_quantize_per_tensor_affine(h.float(), 0.1, 0, -20, 20).to(h),
    "clamp's mask": lambda s, h, x: h * (h.clamp(-0.4, 0.4) == h),
    "a parameter's sign": lambda s, h, x: torch.relu(h) * s.t.sign(),
    "a weight's step": lambda s, h, x: F.linear(x, s.a.weight * s.a.weight.round()),
    "norm > c": lambda s, h, x: torch.where(h.norm(dim=1, keepdim=True) > 1, h / h.norm(dim=1, keepdim=True), h),
    "comparison on the way of a shift": lambda s, h, x: torch.relu(h) + (s.b(h).mean(1, keepdim=True) > 0),
}
for name, function in {**CHOICES, **STEPS}.items():
    CHOOSING.sound(name, between(function), X, **ABC, t=P(4), u=P(5, 4), n=L(4, 4))
LAST = {
    "logits and their steps": lambda s, l: l + (l > 0.2).to(l),
    "logits and their order": lambda s, l: l * F.one_hot(l.argmax(1), 3),
    "logits where large": lambda s, l: torch.where(l > 0.3, l, l - 1),
    "logits and a table by argmax": lambda s, l: l + s.t[l.argmax(1)],
    "logits and a table by rounding": lambda s, l: l + s.t[l.round().long().clamp(0, 2)[:, 0]],
    "logits and steps of differences": lambda s, l: l + (l > l.mean(1, keepdim=True)).to(l),
    "logits less those detached": lambda s, l: l - l.detach().amax(1, keepdim=True),
    "logits over a norm, step": lambda s, l: F.layer_norm(l, (3,), None, None, TINY) + (l[:, :1] > 0).to(l),
}
for name, function in LAST.items():
    CHOOSING.sound(name, lambda s, x, f=function: f(s, s.b(torch.tanh(s.a(x)))), X, **AB, t=P(3, 3))
for name, function in {  # that positive factors leave as they are; a rule may know it
    "h > 0": lambda s, h, x: h * (h > 0),
    "h times its sign": lambda s, h, x: h * h.sign(),
    "where h > 0": lambda s, h, x: torch.where(h > 0, h, 0.1 * h),
    "data's sign": lambda s, h, x: torch.relu(h) * (x[:, :1] > 0),
    "where data": lambda s, h, x: torch.where(x[:, :1] > 0, torch.relu(h), torch.relu(s.c(x))),
    "where data, zero": lambda s, h, x: torch.where(x[:, :1] > 0, torch.relu(h), 0.0),
    "where data, zeros first": lambda s, h, x: torch.where(x[:, :1] > 0, 0, torch.relu(h)),
    "data's largest": lambda s, h, x: torch.relu(h) * F.one_hot(x.argmax(1), 3).sum(1, keepdim=True),
    "data's argmax into a table": lambda s, h, x: torch.relu(h) + torch.relu(s.u[x.argmax(1)]),
    "a mask of samples": lambda s, h, x: torch.relu(h).masked_fill(x.sum(1, keepdim=True) > 0, 0.0),
}.items():
    CHOOSING.complete(name, between(function), X, **ABC, u=P(5, 4))
ROUTES = {
    "top-1 of two experts": lambda s, x, p: torch.where(p[:, :1] > p[:, 1:2], s.a(x).relu(), s.c(x).relu()),
    "top-1, weighted": lambda s, x, p: (
        p.amax(1, keepdim=True) * torch.where(p[:, :1] > p[:, 1:2], s.a(x).relu(), s.c(x).relu())
    ),
    "top-2": lambda s, x, p: sum(
        p.topk(2)[0][:, i : i + 1] * torch.stack([s.a(x), s.c(x), s.d(x)]).relu()[p.topk(2)[1][:, i], torch.arange(8)]
        for i in range(2)
    ),
    "dense": lambda s, x, p: p[:, :1] * s.a(x).relu() + p[:, 1:2] * s.c(x).relu() + p[:, 2:] * s.d(x).relu(),
}
for name, route in ROUTES.items():
    CHOOSING.sound(
        f"route: {name}",
        lambda s, x, r=route: s.b(r(s, x, s.g(x).softmax(1))),
        X,
        slow=name == "dense",
        **ABC,
        d=L(3, 4),
        g=L(3, 3),
    )
CHOOSING.sound("route by scores without softmax", lambda s, x: s.b(s.a(x).relu() * (s.g(x) > 0.2)), X, **AB, g=L(3, 4))
CHOOSING.sound(
    "tokens dropped by their norm",
    lambda s, x: s.b((s.a(x) * (s.a(x).norm(dim=-1, keepdim=True) > 1)).mean(1)),
    S,
    a=L(2, 3),
    b=L(3, 3),
)
CHOOSING.sound(
    "tokens merged by order",
    lambda s, x: s.b(s.a(x).gather(1, s.a(x)[..., :1].argsort(1).expand(4, 3, 3)).flatten(1)),
    S,
    a=L(2, 3),
    b=L(9, 3),
)
CHOOSING.complete("masked_select of a sample by data", lambda s, x: s.b(torch.relu(s.a(x))[x[:, 0] > -100]), X, **AB)
