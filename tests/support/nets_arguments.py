"""Nets with arguments off their defaults: attention, products, pools, norms, powers, slopes, outputs."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from nets import TINY
from nets_more import floats, tokens
from nets_parts import AB, ABC, CONV, QKV, B, I, L, M, Nets, P, S, X

sdpa = F.scaled_dot_product_attention
BETWEEN = torch.arange(3)[:, None] - torch.arange(3) + 2  # relative positions of three tokens, from 0
FAR = (torch.arange(3)[:, None] - torch.arange(3)).abs().double()
EARLIER = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
OUTSIDE = torch.zeros(3, 3).masked_fill(~EARLIER, -math.inf)
ARGUMENTS = Nets()


def attend(mask=None, **options):
    """One head; `mask(net, x, q)` makes attn_mask."""

    def forward(s, x):
        q = s.q(x)
        return s.b(sdpa(q, s.k(x), s.v(x), attn_mask=mask(s, x, q) if mask else None, **options).mean(1))

    return forward


def by_hand(scores):
    """One head whose scores are `scores(net, q @ k.T, x)`."""

    def forward(s, x):
        q, k = s.q(x), s.k(x)
        return s.b((scores(s, q @ k.mT, x).softmax(-1) @ s.v(x)).mean(1))

    return forward


def grouped(mask):
    def forward(s, x):
        q, k, v = (m(x).unflatten(-1, (-1, 2)).transpose(1, 2) for m in (s.q, s.k, s.v))
        return s.b(sdpa(q, k, v, attn_mask=mask(s), enable_gqa=True).transpose(1, 2).flatten(2).mean(1))

    return forward


MASKS = {
    "a table of relative positions": (lambda s, x, q: s.t[BETWEEN], {"t": P(5)}),
    "a table for each pair": (lambda s, x, q: s.t, {"t": P(3, 3)}),
    "one number for each key": (lambda s, x, q: s.t[:, None].mT.expand(3, 3), {"t": P(3)}),
    "one number for each query": (lambda s, x, q: s.t[:, None].expand(3, 3), {"t": P(3)}),
    "a scaled table": (lambda s, x, q: s.u * s.t[BETWEEN], {"t": P(5), "u": P(1)}),
    "a table with some pairs left out": (lambda s, x, q: s.t[BETWEEN].masked_fill(~EARLIER, -math.inf), {"t": P(5)}),
    "an MLP of distances": (
        lambda s, x, q: s.d(torch.relu(s.c(FAR[..., None].to(x))))[..., 0],
        {"c": L(1, 2), "d": L(2, 1)},
    ),
    "learned slopes": (lambda s, x, q: -s.t * FAR.to(x), {"t": P(1)}),
    "the queries": (lambda s, x, q: q @ s.t.mT, {"t": P(3, 2)}),
    "a product of tables": (lambda s, x, q: s.t @ s.u.mT, {"t": P(3, 2), "u": P(3, 2)}),
    "pairs of tokens": (lambda s, x, q: s.c((x[:, :, None] - x[:, None]).abs())[..., 0], {"c": L(2, 1)}),
    "booleans": (lambda s, x, q: EARLIER, {}),
    "booleans from data": (lambda s, x, q: (x[..., :1].mT > 0) | torch.eye(3, dtype=torch.bool), {}),
    "numbers": (lambda s, x, q: -FAR.to(x), {}),
    "minus infinity": (lambda s, x, q: OUTSIDE.to(x), {}),
}
for name, (mask, parts) in MASKS.items():
    ARGUMENTS.complete(f"attn_mask of {name}", attend(mask), S, **QKV, **parts)
for name, mask in {
    "booleans from a parameter": lambda s, x, q: (s.t[BETWEEN] > 0) | torch.eye(3, dtype=torch.bool),
    "booleans from the queries": lambda s, x, q: (q[..., :1] > 0.2) | torch.eye(3, dtype=torch.bool),
    "detached queries": lambda s, x, q: (q @ q.mT).detach(),
}.items():
    ARGUMENTS.sound(f"attn_mask of {name}", attend(mask), S, t=P(5), **QKV)
for name, options in {"is_causal": {"is_causal": True}, "scale": {"scale": 0.3}}.items():
    ARGUMENTS.complete(name, attend(**options), S, **QKV)
ARGUMENTS.complete("attention dropout", attend(dropout_p=0.4), S, **QKV)
GROUPED = {"q": L(2, 4), "k": L(2, 2), "v": L(2, 2), "b": L(4, 3)}
ARGUMENTS.complete(
    "grouped queries, a table for each head", grouped(lambda s: s.t[:, BETWEEN]), S, t=P(2, 5), **GROUPED
)
ARGUMENTS.complete("grouped queries, one table", grouped(lambda s: s.t), S, slow=True, t=P(3, 3), **GROUPED)
SCORES = {
    "a table": (lambda s, a, x: a + s.t[BETWEEN], {"t": P(5)}),
    "a temperature": (lambda s, a, x: a * s.t, {"t": P()}),
    "exp of a temperature": (lambda s, a, x: a * s.t.exp(), {"t": P()}),
    "causal by masked_fill": (lambda s, a, x: a.masked_fill(~EARLIER, -math.inf), {}),
    "causal by where": (lambda s, a, x: torch.where(EARLIER, a, -math.inf), {}),
    "a large negative number added": (lambda s, a, x: a + (~EARLIER) * -1e9, {}),
    "baddbmm": (
        lambda s, a, x: torch.baddbmm(
            s.t[BETWEEN].expand(4, 3, 3), a, torch.eye(3).to(x).expand(4, 3, 3), beta=0.5, alpha=2.0
        ),
        {"t": P(5)},
    ),
}
for name, (scores, parts) in SCORES.items():
    ARGUMENTS.complete(f"scores with {name}", by_hand(scores), S, **QKV, **parts)
for name, scores in {
    "the lowest number filled in": lambda s, a, x: a.masked_fill(~EARLIER, torch.finfo(a.dtype).min),  # is −∞ to exp
    "minus three filled in": lambda s, a, x: a.masked_fill(~EARLIER, -3.0),
    "a parameter filled in": lambda s, a, x: a.masked_fill(~EARLIER, s.t),
    "softmax over queries": lambda s, a, x: a.softmax(-2),
    "softmax over the batch": lambda s, a, x: a.softmax(0),
    "a cap": lambda s, a, x: 2 * torch.tanh(a / 2),
    "only the two highest": lambda s, a, x: torch.where(a >= a.topk(2)[0][..., 1:], a, -math.inf),
}.items():
    ARGUMENTS.sound(f"scores with {name}", by_hand(scores), S, t=P(), **QKV)

FILLS = {
    "a parameter": lambda s, h, x: h.masked_fill(x[:, :1] > 0, s.t),
    "twice a parameter": lambda s, h, x: h.masked_fill(x[:, :1] > 0, 2 * s.t),
    "a product": lambda s, h, x: h.masked_fill(x[:, :1] > 0, s.t * s.u),
    "a mean": lambda s, h, x: h.masked_fill(x[:, :1] > 0, h.mean()),
    "a half": lambda s, h, x: h.masked_fill(x[:, :1] > 0, 0.5) + s.t,
    "zero": lambda s, h, x: h.masked_fill(x[:, :1] > 0, 0.0) * s.t,
}
for name, fill in FILLS.items():
    ARGUMENTS.complete(
        f"masked_fill with {name}", lambda s, x, f=fill: s.b(torch.relu(f(s, s.a(x), x))), X, **AB, t=P(), u=P()
    )
OUT = {"w": P(3, 3), "c": P(3), "d": P(3)}
PRODUCTS = {
    "addmm, beta": (lambda s, x: torch.addmm(s.c, x, s.w, beta=0.5) + s.d, OUT),
    "addmm, beta 0": (lambda s, x: torch.addmm(s.c, x, s.w, beta=0) + s.d, OUT),
    "addmm, alpha": (
        lambda s, x: torch.addmm(s.c, torch.relu(s.a(x)), s.w, alpha=2),
        {"w": P(4, 3), "c": P(3), "a": L(3, 4)},
    ),
    "addmm of two layers": (lambda s, x: s.b(torch.relu(torch.addmm(s.a(x), x, s.w, beta=-2))), {**AB, "w": P(3, 4)}),
    "addmv": (
        lambda s, x: F.linear(torch.relu(s.a(x)), s.w, torch.addmv(s.c, s.v, s.t, beta=2, alpha=-1)),
        {"a": L(3, 4), "w": P(3, 4), "c": P(3), "v": P(3, 2), "t": P(2)},
    ),
    "addr": (
        lambda s, x: s.b(torch.relu(F.linear(x, torch.addr(s.w, s.u, s.v, alpha=0.5)))),
        {"w": P(4, 3), "u": P(4), "v": P(3), "b": L(4, 3)},
    ),
    "baddbmm, beta and alpha": (
        lambda s, x: s.b(torch.baddbmm(s.c, x, s.w.expand(4, 2, 3), beta=3, alpha=-1).relu()).mean(1),
        {"w": P(1, 2, 3), "c": P(1, 1, 3), "b": L(3, 3)},
    ),
    "addbmm": (lambda s, x: torch.addbmm(s.c, x.mT, s.a(x)[..., :3], beta=0.3), {"a": L(2, 3), "c": P(2, 3)}),
    "add, alpha": (lambda s, x: s.b(torch.add(torch.relu(s.a(x)), torch.relu(s.c(x)), alpha=3)), ABC),
    "sub, alpha": (lambda s, x: s.b(torch.sub(s.a(x), s.c(x), alpha=-0.5).relu()), ABC),
    "rsub, alpha": (lambda s, x: s.b(torch.rsub(s.a(x), s.c(x), alpha=0.5).relu()), ABC),
    "half a mean taken out": (lambda s, x: torch.sub(s.a(x), s.a(x).mean(1, keepdim=True), alpha=0.5), {"a": L(3, 3)}),
    "a half mean taken out, then a norm": (
        lambda s, x: s.b(F.rms_norm(torch.sub(s.a(x), s.a(x).mean(1, keepdim=True), alpha=0.5), (4,), None, TINY)),
        AB,
    ),
}
for name, (forward, parts) in PRODUCTS.items():
    ARGUMENTS.complete(name, forward, S if "bmm" in name else X, **parts)

WIDTHS = {
    "avg_pool1d of rows, stride": 2,
    "lp_pool1d of rows": 2,
    "adaptive_max_pool1d of rows": 2,
    "adaptive_avg_pool1d of rows, windows that overlap": 3,
}
POOLS = {
    "avg_pool1d of rows": lambda s, x: s.b(F.avg_pool1d(s.a(x), 3, 1, 1)),
    "avg_pool1d of rows, stride": lambda s, x: s.b(F.avg_pool1d(torch.relu(s.a(x)), 2, 2)),
    "max_pool1d of rows": lambda s, x: s.b(F.max_pool1d(s.a(x), 3, 1, 1)),
    "lp_pool1d of rows": lambda s, x: s.b(F.lp_pool1d(s.a(x).relu() + 1, 2, 3, 1)),
    "avg_pool2d without a batch": lambda s, x: s.b(F.avg_pool2d(s.a(x)[None], (3, 1), 1, (1, 0))[0]),
    "adaptive_avg_pool1d of rows": lambda s, x: s.b(F.adaptive_avg_pool1d(torch.relu(s.a(x)), 4)),
    "adaptive_avg_pool1d of rows, windows that overlap": lambda s, x: s.b(F.adaptive_avg_pool1d(s.a(x), 3)),
    "adaptive_max_pool1d of rows": lambda s, x: s.b(F.adaptive_max_pool1d(s.a(x), 2)),
}
for name, forward in POOLS.items():
    ARGUMENTS.complete(name, forward, X, a=L(3, 4), b=L(WIDTHS.get(name, 4), 3))


def pooled(pool):
    return lambda s, x: s.b(pool(torch.relu(s.a(x))).flatten(1))


IMAGE_POOLS = {
    "count_include_pad": (lambda h: F.avg_pool2d(h, 2, 2, 1, count_include_pad=True), 12),
    "not count_include_pad": (lambda h: F.avg_pool2d(h, 2, 2, 1, count_include_pad=False), 12),
    "ceil_mode": (lambda h: F.avg_pool2d(h, 2, 2, ceil_mode=True), 12),
    "divisor_override": (lambda h: F.avg_pool2d(h, 2, 1, divisor_override=3), 12),
    "max, ceil_mode": (lambda h: F.max_pool2d(h, 2, 2, ceil_mode=True), 12),
    "max, dilation": (lambda h: F.max_pool2d(h, 2, 1, dilation=2), 3),
    "max with indices": (lambda h: F.max_pool2d(h, 2, 1, return_indices=True)[0], 12),
    "lp": (lambda h: F.lp_pool2d(h, 2, 3), 3),
    "adaptive max with indices": (lambda h: F.adaptive_max_pool2d(h, (2, 1), return_indices=True)[0], 6),
}
for name, (pool, width) in IMAGE_POOLS.items():
    ARGUMENTS.complete(f"pool: {name}", pooled(pool), I, slow=width > 6, **CONV | {"b": L(width, 3)})
for name, pool in {
    "without a batch": lambda s, h: F.avg_pool2d(h, 2, 1),
    "without a batch, max": lambda s, h: F.max_pool2d(h, 2, 1),
}.items():
    ARGUMENTS.complete(
        f"pool: {name}",
        lambda s, x, p=pool: s.b(p(s, torch.relu(s.a(x)))).mean(1),
        floats(6, 3, 2),
        a=L(2, 4),
        b=L(3, 3),
    )

NORMS = {
    **{f"norm, p={p}": lambda h, p=p: h.norm(p=p, dim=-1, keepdim=True) for p in (1, 2, 3, math.inf, 0.5, 1.5)},
    **{f"vector_norm, ord={p}": lambda h, p=p: torch.linalg.vector_norm(h, p, -1, True) for p in (-1, -math.inf, 3)},
    "norm of the whole": lambda h: h.norm(),
    "norm of the whole, p=1": lambda h: h.norm(1),
    "Frobenius norm over two dims": lambda h: torch.norm(h, "fro", dim=(0, 1)),
    "norm over the batch, p=3": lambda h: h.norm(3, dim=0),
    "linalg.norm": lambda h: torch.linalg.norm(h, dim=1, keepdim=True),
    "vector_norm, dtype": lambda h: torch.linalg.vector_norm(h, 3, 1, True, dtype=h.dtype),
    "mean of magnitudes": lambda h: h.abs().mean(1, keepdim=True),
}
for name, norm in NORMS.items():
    ARGUMENTS.complete(f"over {name}", lambda s, x, n=norm: s.b(s.a(x) / n(s.a(x))), X, slow="ord" in name, **AB)
    ARGUMENTS.complete(f"times {name}", lambda s, x, n=norm: s.b(s.a(x) * n(s.a(x))), X, slow="p=2" not in name, **AB)
ARGUMENTS.sound("times norm, p=0", lambda s, x: s.b(s.a(x) * s.a(x).norm(p=0, dim=1, keepdim=True)), X, **AB)
ARGUMENTS.sound(
    "times vector_norm, ord=0", lambda s, x: s.b(s.a(x) * torch.linalg.vector_norm(s.a(x), 0, 1, True)), X, **AB
)

for power in (0.5, 1 / 3, 1.5, -1, -0.25, 4, 1, 0.123456789):
    ARGUMENTS.complete(f"to the power of {power:.2g}", lambda s, x, p=power: s.b(s.a(x).abs() ** p), X, **AB)
for name, power in {  # real numbers may solve the constraints; what is claimed must be true to rounding
    "pi": lambda s, h: h.abs() ** math.pi,
    "the root of 2": lambda s, h: h.abs().pow(2**0.5),
    "0": lambda s, h: h**0 + h,
    "a parameter": lambda s, h: h.abs() ** s.t,
    "itself": lambda s, h: h.abs() ** h,
    "2, in floats": lambda s, h: torch.float_power(h, 2).to(h),
    "2, as a tensor": lambda s, h: h ** torch.tensor(2),
}.items():
    ARGUMENTS.sound(f"to the power of {name}", lambda s, x, p=power: s.b(p(s, s.a(x))), X, **AB, t=P())
ARGUMENTS.sound("a number to the power", lambda s, x: s.b(1.5 ** s.a(x)), X, **AB)
ARGUMENTS.sound(
    "two roots that nearly cancel", lambda s, x: s.b(s.a(x).abs() ** math.pi / s.a(x).abs() ** (355 / 113)), X, **AB
)

SLOPES = {
    **{f"leaky_relu, slope {k}": lambda s, h, k=k: F.leaky_relu(h, k) for k in (-0.3, 1.5, 0.0)},
    "prelu, shared": lambda s, h: F.prelu(h, s.t[:1]),
    "prelu, one for each channel": lambda s, h: F.prelu(h, s.t),
    "clamp from 0": lambda s, h: h.clamp(min=0),
    "clamp to 0": lambda s, h: h.clamp(max=0.0),
    "threshold at 0": lambda s, h: F.threshold(h, 0.0, 0.0),
    "hardtanh without bounds": lambda s, h: F.hardtanh(h, 0.0, math.inf),
}
for name, act in SLOPES.items():
    ARGUMENTS.complete(name, lambda s, x, f=act: s.b(f(s, s.a(x))), X, **AB, t=P(4))
for name, act in {
    "clamp": lambda s, h: h.clamp(-0.5, 0.5),
    "clamp from a half": lambda s, h: h.clamp(min=0.5),
    "clamp from a thousandth": lambda s, h: h.clamp(min=1e-3),
    "clamp from a parameter": lambda s, h: torch.clamp(h, min=s.t),
    "clamp to a parameter": lambda s, h: torch.clamp(h, max=s.t),
    "relu6": lambda s, h: F.relu6(h),
    "hardtanh": lambda s, h: F.hardtanh(h, 0.0, 2.0),
    "threshold": lambda s, h: F.threshold(h, 0.3, 0.0),
    "rrelu": lambda s, h: F.rrelu(h, 0.1, 0.6, training=True),
    "hardshrink": lambda s, h: F.hardshrink(h, 0.3),
    "softshrink": lambda s, h: F.softshrink(h, 0.3),
    "elu": lambda s, h: F.elu(h, 0.3),
    "celu": lambda s, h: F.celu(h, 2.0),
    "softplus": lambda s, h: F.softplus(h, 2.0),
    "hardsigmoid": lambda s, h: F.hardsigmoid(h),
    "hardswish": lambda s, h: F.hardswish(h),
    "gelu, tanh": lambda s, h: F.gelu(h, approximate="tanh"),
    "logit": lambda s, h: torch.logit(h.sigmoid(), eps=0.1),
    "nan_to_num": lambda s, h: torch.nan_to_num(h, 0.0, 1.0, -1.0),
    "cumsum": lambda s, h: h.cumsum(1),
    "cumsum over the batch": lambda s, h: h.cumsum(0),
    "cumprod": lambda s, h: h.cumprod(1),
    "prod": lambda s, h: h * h.prod(1, keepdim=True),
    "logcumsumexp": lambda s, h: h.logcumsumexp(1),
    "mean, dtype": lambda s, h: h * h.mean(1, keepdim=True, dtype=h.dtype),
    "sum, dtype": lambda s, h: h.abs().sum(1, keepdim=True, dtype=h.dtype) + h,
    "softmax, dtype": lambda s, h: h.softmax(1, dtype=h.dtype),
    "softmax over the batch": lambda s, h: h.softmax(0),
    "softmin": lambda s, h: F.softmin(h, dim=1),
    "softmax of the whole": lambda s, h: h.flatten().softmax(0).view_as(h),
    "diff": lambda s, h: F.pad(h.diff(dim=1), (0, 1)),
    "renorm": lambda s, h: torch.renorm(h, 2, 0, 1.0),
    "hypot": lambda s, h: torch.hypot(h, s.t),
    "heaviside": lambda s, h: h * torch.heaviside(h.detach(), s.t.detach()),
}.items():
    ARGUMENTS.sound(name, lambda s, x, f=act: s.b(f(s, s.a(x))), X, **AB, t=P(4))
ARGUMENTS.sound("clamp to a buffer", lambda s, x: s.b(torch.clamp(s.a(x), max=s.t)), X, **AB, t=B(torch.tensor(0.5)))

SPREADS = {
    "var, biased": lambda h: h / h.var(1, keepdim=True, correction=0) ** 0.5,
    "var, correction 2": lambda h: h / h.var(1, keepdim=True, correction=2).sqrt(),
    "std, biased": lambda h: (h - h.mean(1, keepdim=True)) / h.std(1, unbiased=False, keepdim=True),
    "std of the whole": lambda h: h / h.std(),
    "var of the whole, biased": lambda h: h / h.var(False),
    "std over two dims": lambda h: h / h.std((0, 1), keepdim=True),
    "std over the batch": lambda h: (h - h.mean(0)) / h.std(0),
    "std_mean": lambda h: (lambda s, m: (h - m) / s)(*torch.std_mean(h, 1, keepdim=True)),
    "var_mean": lambda h: (lambda v, m: (h - m) * v.rsqrt())(*torch.var_mean(h, 1, keepdim=True)),
    "layer_norm over two dims": lambda h: F.layer_norm(h, (8, 4), eps=TINY),
}
for name, spread in SPREADS.items():
    ARGUMENTS.complete(name, lambda s, x, f=spread: s.b(f(s.a(x))), X, **AB)


def normed(norm):
    return lambda s, x: s.b(torch.relu(norm(s, s.a(x))))


BN = {
    "m": lambda: nn.Buffer(torch.full((4,), 0.3)),
    "r": lambda: nn.Buffer(torch.full((4,), 2.0)),
    "w": P(4),
    "c": P(4),
}
for name, norm in {
    "layer_norm, weight only": lambda s, h: F.layer_norm(h, (4,), s.w, None, TINY),
    "layer_norm, bias only": lambda s, h: F.layer_norm(h, (4,), None, s.c, TINY),
    "batch_norm, weight only": lambda s, h: F.batch_norm(h, None, None, s.w, None, True, 0.1, TINY),
    "batch_norm, statistics moved": lambda s, h: F.batch_norm(h, s.m, s.r, s.w, s.c, True, 0.3, TINY),
    "batch_norm, fixed statistics": lambda s, h: F.batch_norm(h, s.m, s.r, s.w, s.c, False, 0.1, TINY),
    "batch_norm, fixed statistics alone": lambda s, h: F.batch_norm(h, s.m, s.r, None, None, False, 0.1, TINY),
    "instance_norm, fixed statistics": lambda s, h: F.instance_norm(
        h[:, :, None].expand(8, 4, 2), s.m, s.r, s.w, s.c, False, 0.1, TINY
    ).mean(2),
    "group_norm": lambda s, h: F.group_norm(h[:, :, None], 1, s.w, s.c, TINY)[..., 0],
    "rms_norm, no weight": lambda s, h: F.rms_norm(h, (4,), None, TINY),
}.items():
    ARGUMENTS.complete(name, normed(norm), X, **AB, **BN)
ARGUMENTS.complete(
    "BatchNorm with a plain average", normed(lambda s, h: s.n(h)), X, **AB, n=M(nn.BatchNorm1d, 4, TINY, None)
)
ARGUMENTS.complete(
    "BatchNorm without statistics",
    normed(lambda s, h: s.n(h)),
    X,
    **AB,
    n=M(nn.BatchNorm1d, 4, TINY, track_running_stats=False),
)
ARGUMENTS.complete(
    "LayerNorm over two dims",
    lambda s, x: s.b(torch.relu(s.n(s.a(x)))).mean(1),
    S,
    a=L(2, 3),
    b=L(3, 3),
    n=M(nn.LayerNorm, (3, 3), TINY),
)
ARGUMENTS.complete(
    "LayerNorm without bias", normed(lambda s, h: s.n(h)), X, **AB, n=M(nn.LayerNorm, 4, TINY, bias=False)
)

ARGUMENTS.complete("outputs for each token", lambda s, x: s.b(torch.relu(s.a(x))), S, a=L(2, 4), b=L(4, 3))
ARGUMENTS.complete(
    "outputs for each pixel", lambda s, x: s.b(torch.relu(s.a(x))), I, a=M(nn.Conv2d, 2, 3, 2), b=M(nn.Conv2d, 3, 3, 1)
)
ARGUMENTS.complete(
    "outputs for each pixel, a norm",
    lambda s, x: s.b(F.group_norm(s.a(x), 1, None, None, TINY)),
    I,
    a=M(nn.Conv2d, 2, 3, 2),
    b=M(nn.ConvTranspose2d, 3, 3, 1),
)
ARGUMENTS.complete("log_softmax last", lambda s, x: s.b(torch.relu(s.a(x))).log_softmax(-1), X, **AB)
ARGUMENTS.sound("softmax last", lambda s, x: s.b(torch.relu(s.a(x))).softmax(-1), X, **AB)
ARGUMENTS.complete(
    "squares of pixels",
    lambda s, x: s.b(torch.relu(s.a(x))),
    I,
    loss="mse",
    a=M(nn.Conv2d, 2, 3, 2),
    b=M(nn.Conv2d, 3, 1, 1),
)

for name, options in {
    "padding_idx": {"padding_idx": 0},
    "scale_grad_by_freq": {"scale_grad_by_freq": True},
    "max_norm": {"max_norm": 0.5},
    "max_norm, p=1": {"max_norm": 1.0, "norm_type": 1.0},
}.items():
    ARGUMENTS.sound(
        f"Embedding, {name}",
        lambda s, x: s.b(torch.relu(s.e(x))).mean(1),
        tokens(6, 3),
        e=M(nn.Embedding, 5, 3, **options),
        b=L(3, 3),
    )
CONVOLUTIONS = {
    "padding by name": M(nn.Conv2d, 2, 3, 2, padding="same"),
    "no padding by name": M(nn.Conv2d, 2, 3, 2, padding="valid"),
    "circular": M(nn.Conv2d, 2, 3, 3, padding=1, padding_mode="circular"),
    "reflect": M(nn.Conv2d, 2, 3, 3, padding=1, padding_mode="reflect"),
    "replicate": M(nn.Conv2d, 2, 3, 3, padding=1, padding_mode="replicate"),
    "dilated, strided": M(nn.Conv2d, 2, 3, 2, stride=2, dilation=2, padding=1),
    "in groups": M(nn.Conv2d, 2, 4, 2, groups=2, bias=False),
    "transposed": M(nn.ConvTranspose2d, 2, 3, 2, stride=2, output_padding=1, dilation=2, padding=1),
    "transposed in groups": M(nn.ConvTranspose2d, 2, 4, 2, groups=2),
}
for name, conv in CONVOLUTIONS.items():
    width = 4 if "groups" in name else 3
    for after, act in {"relu": torch.relu, "square": torch.square}.items():
        ARGUMENTS.complete(
            f"convolution, {name}, {after}",
            lambda s, x, f=act: s.b(f(s.a(x)).mean((2, 3))),
            I,
            slow=after == "square",
            a=conv,
            b=L(width, 3),
        )
    ARGUMENTS.complete(
        f"convolution, {name}, BatchNorm",
        lambda s, x: s.b(torch.relu(s.n(s.a(x))).mean((2, 3))),
        I,
        slow="in" in name,
        a=conv,
        n=M(nn.BatchNorm2d, width, TINY),
        b=L(width, 3),
    )
for mode, options in {
    "nearest": {},
    "nearest-exact": {},
    "bilinear": {},
    "bilinear, corners": {"align_corners": True},
    "bicubic": {},
    "area": {},
}.items():

    def resized(s, x, mode=mode, options=options):
        return s.b(F.interpolate(torch.relu(s.a(x)), (4, 4), mode=mode.split(",")[0], **options)[:, :, 1:].flatten(1))

    add = ARGUMENTS.sound if mode.startswith("bi") else ARGUMENTS.complete
    add(f"interpolate, {mode}", resized, I, slow=mode != "nearest", a=M(nn.Conv2d, 2, 1, 3), b=L(12, 3))
ARGUMENTS.complete(
    "interpolate, down",
    lambda s, x: s.b(F.interpolate(torch.relu(s.a(x))[:, None], scale_factor=0.5)[:, 0]),
    X,
    a=L(3, 4),
    b=L(2, 3),
)
