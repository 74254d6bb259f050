"""Nets with constants, computed weights, other names of operations, and choices of the larger."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from nets import TINY
from nets_more import tokens
from nets_parts import AB, L, M, Nets, P, S, X

CONSTANTS = Nets()


def put(h, at, base):
    base[at] = h[at] if isinstance(at, tuple) and len(at) == 2 else h
    return base


def filled(s, h, x):
    out = torch.empty_like(h)
    out[:, :2] = h[:, 2:]
    out[:, 2:] = 0
    return out


def grown(s, h, x):
    out = h.new_zeros(8, 4)
    for i in range(4):
        out[:, i] += h[:, i]
    return out


HIDDEN = {
    "zeros added": lambda s, h, x: h + torch.zeros(8, 4),
    "zeros_like added": lambda s, h, x: torch.zeros_like(h) + h,
    "new_zeros subtracted": lambda s, h, x: h - h.new_zeros(4),
    "zeros that h is taken from": lambda s, h, x: -(h.new_zeros(4) - h),
    "a zero buffer": lambda s, h, x: h + s.zero,
    "zero as a 0-d tensor": lambda s, h, x: h + torch.tensor(0.0),
    "full of zero": lambda s, h, x: h + torch.full((8, 4), 0.0),
    "sum from zero": lambda s, h, x: sum([h, torch.relu(s.c(x))]),
    "sum from zeros": lambda s, h, x: sum([h, torch.relu(s.c(x))], h.new_zeros(8, 4)),
    "maximum with zeros": lambda s, h, x: torch.maximum(h - 0.5 * h.mean(), h.new_zeros(8, 4)),
    "zeros concatenated": lambda s, h, x: torch.cat([h[:, :2], h.new_zeros(8, 2)], 1) + torch.relu(s.c(x)),
    "zeros assigned in": lambda s, h, x: put(h, (slice(None), slice(1, 3)), h.new_zeros(8, 4)) + torch.relu(s.c(x)),
    "zeros, samples assigned": lambda s, h, x: put(h, (slice(2, 6), slice(None)), h.new_zeros(8, 4)),
    "zeros filled one by one": grown,
    "half filled": filled,
    "zeros times": lambda s, h, x: h + 0 * s.c(x),
    "where, zero": lambda s, h, x: torch.where(x[:, :1] > 0, h, 0.0),
    "where, zeros": lambda s, h, x: torch.where(x[:, :1] > 0, torch.zeros_like(h), h),
    "where, 0-d zero": lambda s, h, x: torch.where(x[:, :1] > 0, h, h.new_zeros(())),
    "clone_zero_": lambda s, h, x: h.clone().zero_() + h,
    "index_fill": lambda s, h, x: h.index_fill(0, torch.tensor([1, 3]), 0.0),
    "masked_scatter of zeros": lambda s, h, x: torch.zeros_like(h).masked_scatter(x[:, :1].expand(8, 4) > 9, h) + h,
    "arange as factor": lambda s, h, x: h * torch.arange(1, 5),
    "linspace as factor": lambda s, h, x: h * torch.linspace(-1, 2, 4),
    "a ramp over samples": lambda s, h, x: h * torch.arange(8)[:, None],
    "ones as factor": lambda s, h, x: h * torch.ones(8, 4),
    "full as factor": lambda s, h, x: torch.full_like(h, 0.3) * h,
    "over a constant": lambda s, h, x: h / torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "a 0-d factor": lambda s, h, x: h * torch.tensor(2.0),
    "an eye": lambda s, h, x: h * torch.eye(4).sum(0),
    "a number twice": lambda s, h, x: 3 * h - h / 2,
    "upcast and back": lambda s, h, x: h.to(torch.float64).to(h.dtype),
    "contiguous, clone, alias": lambda s, h, x: h.T.contiguous().T.clone().view_as(h),
    # torch's other names
    "concat": lambda s, h, x: torch.concat([h], 1),
    "concatenate": lambda s, h, x: torch.concatenate([h[:, :2], h[:, 2:]], 1),
    "multiply": lambda s, h, x: torch.multiply(h, torch.relu(s.c(x))),
    "divide": lambda s, h, x: torch.divide(h, h.abs().mean(1, keepdim=True)),
    "true_divide": lambda s, h, x: torch.true_divide(h, 2.5),
    "subtract": lambda s, h, x: torch.subtract(h, torch.relu(s.c(x))),
    "absolute": lambda s, h, x: torch.absolute(h),
    "negative, positive": lambda s, h, x: torch.negative(torch.positive(h)),
    "clip": lambda s, h, x: torch.clip(s.a(x), min=0),
    "swapaxes, moveaxis": lambda s, h, x: torch.moveaxis(h.swapaxes(0, 1), 0, 1),
    "hstack, vstack": lambda s, h, x: torch.vstack([torch.hstack([h[:4, :1], h[:4, 1:]]), h[4:]]),
    "column_stack": lambda s, h, x: torch.column_stack([h[:, 0], h[:, 1:]]),
    "row_stack": lambda s, h, x: torch.vstack(h.unbind(0)),
    "dsplit of stacks": lambda s, h, x: torch.dstack([h, -h]).sum(2) + torch.dstack([h, h])[..., 0],
    "addcmul": lambda s, h, x: torch.addcmul(h, torch.relu(s.c(x)), s.t, value=0.5),
    "addcdiv": lambda s, h, x: torch.addcdiv(h, torch.relu(s.c(x)), s.t, value=-2),
    "lerp": lambda s, h, x: torch.lerp(h, torch.relu(s.c(x)), 0.3),
    "lerp by data": lambda s, h, x: torch.lerp(h, torch.relu(s.c(x)), x[:, :1].sigmoid()),
    "lerp by a parameter": lambda s, h, x: torch.lerp(h, torch.relu(s.c(x)), s.t.sigmoid()),
    # the larger of two
    "maximum": lambda s, h, x: torch.maximum(s.a(x), s.c(x)),
    "minimum": lambda s, h, x: torch.minimum(s.a(x), s.c(x)),
    "max of two": lambda s, h, x: torch.max(s.a(x), s.c(x)),
    "fmax": lambda s, h, x: torch.fmax(s.a(x), s.c(x)),
    "max of a stack": lambda s, h, x: torch.stack([s.a(x), s.c(x)]).max(0).values,
    "min of a stack": lambda s, h, x: torch.stack([s.a(x), s.c(x)]).min(0)[0],
    "amax of a stack": lambda s, h, x: torch.stack([s.a(x), s.c(x)]).amax(0),
    "less its largest": lambda s, h, x: s.a(x) - s.a(x).max(1, keepdim=True)[0],
    "times its largest": lambda s, h, x: h * h.max(1, keepdim=True).values,
    "over its largest": lambda s, h, x: s.a(x) / s.a(x).abs().amax(1, keepdim=True),
    "aminmax": lambda s, h, x: s.a(x) / (lambda m: m.max - m.min)(torch.aminmax(s.a(x), dim=1, keepdim=True)),
    "max of all": lambda s, h, x: s.a(x) / s.a(x).abs().max(),
    # constant places
    "index_select": lambda s, h, x: h.index_select(1, torch.tensor([3, 1, 0, 2])),
    "gather": lambda s, h, x: h.gather(1, torch.tensor([[3, 1, 0, 2]]).expand(8, 4)),
    "take_along_dim": lambda s, h, x: torch.take_along_dim(h, torch.tensor([[1, 0, 3, 2]]), 1),
    "take": lambda s, h, x: torch.take(h, torch.arange(32).flip(0).view(8, 4)),
    "a list of channels": lambda s, h, x: h[:, [2, 0, 3, 1]],
    "a list of samples": lambda s, h, x: h[[0, 0, 1, 2, 3, 4, 5, 6]] + h,
    "index_add over samples": lambda s, h, x: torch.zeros_like(h).index_add(
        0, torch.tensor([1, 2, 3, 0, 5, 6, 7, 1]), h
    ),
    "index_add over channels": lambda s, h, x: torch.zeros_like(h).index_add(1, torch.tensor([0, 1, 2, 3]).flip(0), h),
    "index_add, alpha": lambda s, h, x: h.index_add(0, torch.tensor([1, 2]), torch.relu(s.c(x))[:2], alpha=-2),
    "scatter_add": lambda s, h, x: torch.zeros_like(h).scatter_add(
        0, torch.tensor([1, 2, 3, 0, 5, 6, 7, 1])[:, None].expand(8, 4), h
    ),
    "scatter": lambda s, h, x: torch.zeros_like(h).scatter(1, torch.tensor([[1, 0, 3, 2]]).expand(8, 4), h),
    "scatter_reduce, mean": lambda s, h, x: torch.zeros_like(h).scatter_reduce(
        0, torch.arange(8).flip(0)[:, None].expand(8, 4), h, "mean", include_self=False
    ),
    "scatter_reduce, amax": lambda s, h, x: torch.zeros_like(h).scatter_reduce(
        0, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])[:, None].expand(8, 4), s.a(x), "amax", include_self=False
    ),
    "index_reduce": lambda s, h, x: torch.zeros_like(h).index_reduce(
        0, torch.arange(8).flip(0), h, "mean", include_self=False
    ),
    "index_copy": lambda s, h, x: torch.zeros_like(h).index_copy(1, torch.tensor([2, 0, 1, 3]), h),
    "index_put": lambda s, h, x: torch.zeros_like(h).index_put((torch.tensor([0, 1, 1]),), h[:3], accumulate=True) + h,
    "select_scatter": lambda s, h, x: torch.zeros_like(h).select_scatter(h[:, 0], 1, 0) + h,
    "triu over samples": lambda s, h, x: h.triu(),
    "repeat_interleave": lambda s, h, x: h.repeat_interleave(2, 0)[::2],
    "tile": lambda s, h, x: h.tile(2, 1)[3:11],
    "rot90": lambda s, h, x: torch.rot90(h, 2, (0, 1)),
    "constant matrix over samples": lambda s, h, x: torch.eye(8).roll(1, 0).to(h) @ h,
    # sharp sums
    "logsumexp": lambda s, h, x: s.a(x) - s.a(x).logsumexp(1, keepdim=True),
    "layer_norm by hand": lambda s, h, x: (
        (s.a(x) - s.a(x).mean(1, keepdim=True)) / (s.a(x).var(1, keepdim=True, unbiased=False) + TINY).sqrt()
    ),
    "normalize": lambda s, h, x: F.normalize(s.a(x), dim=1, eps=TINY),
    "normalize, p=1": lambda s, h, x: F.normalize(s.a(x), p=1.0, dim=1, eps=TINY),
    "normalize over the batch": lambda s, h, x: F.normalize(s.a(x), dim=0, eps=TINY),
    "cosine of two": lambda s, h, x: (
        F.cosine_similarity(s.a(x), s.c(x), dim=1, eps=TINY)[:, None] * x[:, :1] * torch.ones(4)
    ),
    "eps in a root": lambda s, h, x: s.a(x) * (s.a(x).pow(2).mean(1, keepdim=True) + TINY).rsqrt(),
    "eps in a quotient": lambda s, h, x: s.a(x) / (s.a(x).abs().mean(1, keepdim=True) + TINY),
    "eps as a floor": lambda s, h, x: s.a(x) / s.a(x).norm(dim=1, keepdim=True).clamp(min=TINY),
    "eps as a tensor": lambda s, h, x: s.a(x) / (s.a(x).norm(dim=1, keepdim=True) + torch.tensor(TINY)),
    "eps in a maximum": lambda s, h, x: s.a(x) / torch.maximum(s.a(x).norm(dim=1, keepdim=True), torch.tensor(TINY)),
    "response norm of channels": lambda s, h, x: F.layer_norm(h, (4,), None, None, TINY) * s.t + h,
}
SOUND = {"where, 0-d zero", "take", "dsplit of stacks", "index_add over channels", "lerp by a parameter"}
OFTEN = (
    "zero",
    "where",
    "half",
    "concat",
    "addcmul",
    "max of",
    "gather",
    "index_add over samples",
    "scatter",
    "lerp",
    "eps in",
)
for name, function in HIDDEN.items():
    parts = AB | {
        k: v
        for k, v in {"c": L(3, 4), "t": P(4)}.items()
        if f"s.{k}" in "".join(map(str, function.__code__.co_names)) or k in function.__code__.co_names
    }
    if "zero" in function.__code__.co_names:
        parts["zero"] = lambda: nn.Buffer(torch.zeros(4))
    CONSTANTS.complete(
        name, lambda s, x, f=function: s.b(f(s, torch.relu(s.a(x)), x)), X, slow=not name.startswith(OFTEN), **parts
    )
for name, function in {  # what is small and positive may be felt: it is no norm's eps
    "a thousandth in a root": lambda s, h: torch.sqrt(torch.relu(h) + 1e-3),
    "a thousandth in a root of squares": lambda s, h: torch.sqrt(h**2 + 1e-3),
    "a thousandth in a quotient": lambda s, h: 1 / (h.abs() + 1e-3),
    "a thousandth in a power": lambda s, h: (h.abs() + 1e-3) ** 0.5,
    "a thousandth as a floor": lambda s, h: h.clamp(min=1e-3),
    "a thousandth in a logarithm": lambda s, h: torch.log(h.abs() + 1e-3),
    "a thousandth in a gate": lambda s, h: h / (h.abs() + 1e-3).sqrt(),
    "a thousandth as a tensor": lambda s, h: torch.sqrt(h.abs() + torch.tensor(1e-3)),
    "a hundredth in a root": lambda s, h: torch.sqrt(h.abs() + 0.01),
    "one added": lambda s, h: torch.relu(h) + 1,
    "ones added": lambda s, h: torch.relu(h) + torch.ones(4),
    "a constant added": lambda s, h: torch.relu(h) + torch.arange(4) * 0.1,
    "a constant taken away": lambda s, h: 1 - torch.relu(h),
    "ones concatenated": lambda s, h: torch.cat([torch.relu(h)[:, 1:], torch.ones_like(h[:, :1])], 1),
    "ones assigned": lambda s, h: put(torch.relu(h), (slice(None), slice(1, 3)), torch.ones_like(h)),
    "where, one": lambda s, h: torch.where(torch.arange(4) > 1, torch.relu(h), 1.0),
    "maximum with a number": lambda s, h: torch.maximum(h, torch.tensor(0.3)),
    "lerp to one": lambda s, h: torch.lerp(torch.relu(h), torch.ones_like(h), 0.3),
    "zeros plus one": lambda s, h: (h.new_zeros(4) + 1) * torch.relu(h) + torch.zeros(4).exp(),
    "cosine of zeros": lambda s, h: torch.relu(h) + torch.zeros(4).cos(),
    "an eps felt by a norm": lambda s, h: F.layer_norm(h, (4,), None, None, 0.3),
    "squares of zero": lambda s, h: torch.relu(h) + 0 * h.exp(),
}.items():
    CONSTANTS.sound(name, lambda s, x, f=function: s.b(f(s, s.a(x))), X, **AB)


def from_zeros(step, **parts):
    def forward(s, x):
        h = x.new_zeros(4, 3)
        for t in range(3):
            h = step(s, h, x[:, t])
        return s.b(h)

    return forward, S, {"i": L(2, 3), "h": L(3, 3), "b": L(3, 3)} | parts


def scan(s, x):
    """A linear recurrence with a gate for each channel."""
    h, out = x.new_zeros(4, 3), []
    for t in range(3):
        h = s.d.sigmoid() * h + s.i(x[:, t])
        out.append(h)
    return s.b(torch.relu(torch.stack(out, 1)).mean(1))


RECURRENT = {
    "an RNN from zeros": from_zeros(lambda s, h, x: torch.relu(s.i(x) + s.h(h))),
    "an RNN from zeros, two gates": from_zeros(lambda s, h, x: s.g(x).sigmoid() * h + torch.relu(s.i(x)), g=L(2, 3)),
    "an RNN from a parameter": (
        lambda s, x: s.b(torch.relu(s.i(x[:, 0]) + s.h(s.z.expand(4, 3)))),
        S,
        {"i": L(2, 3), "h": L(3, 3), "z": P(3), "b": L(3, 3)},
    ),
    "a scan": (scan, S, {"i": L(2, 3), "d": P(3), "b": L(3, 3)}),
    "a sum over tokens from zeros": from_zeros(lambda s, h, x: h + torch.relu(s.i(x))),
}
for name, (forward, inputs, parts) in RECURRENT.items():
    parts = {k: v for k, v in parts.items() if k != "h" or name in ("an RNN from zeros", "an RNN from a parameter")}
    CONSTANTS.complete(name, forward, inputs, **parts)


def weight(compute, **parts):
    return lambda s, x: s.b(torch.relu(F.linear(x, compute(s)))), {"b": L(4, 3), **parts}


W = {"w": P(4, 3)}
WEIGHTS = {
    "a constant times": weight(lambda s: s.w * 0.3, **W),
    "a constant mask": weight(lambda s: s.w * torch.ones(4, 3).tril(), **W),
    "tril": weight(lambda s: s.w.tril(), **W),
    "triu, a row of zeros": weight(lambda s: s.w.triu(), **W),
    "masked_fill": weight(lambda s: s.w.masked_fill(torch.ones(4, 3).tril() == 0, 0.0), **W),
    "where": weight(lambda s: torch.where(torch.ones(4, 3).tril() > 0, s.w, 0.5), **W),
    "transposed": weight(lambda s: s.w.t(), w=P(3, 4)),
    "mT": weight(lambda s: s.w.mT, w=P(3, 4)),
    "U @ V": weight(lambda s: s.u @ s.v, u=P(4, 2), v=P(2, 3)),
    "U @ diag @ V": weight(lambda s: s.u * s.d @ s.v, u=P(4, 2), d=P(2), v=P(2, 3)),
    "LoRA": weight(lambda s: s.w + s.u @ s.v, u=P(4, 1), v=P(1, 3), **W),
    "LoRA, scaled": weight(lambda s: s.w + 0.5 * (s.u @ s.v), u=P(4, 1), v=P(1, 3), **W),
    "DoRA": weight(
        lambda s: s.d * (s.w + s.u @ s.v) / (s.w + s.u @ s.v).norm(dim=1, keepdim=True),
        d=P(4, 1),
        u=P(4, 1),
        v=P(1, 3),
        **W,
    ),
    "standardised": weight(lambda s: (s.w - s.w.mean(1, keepdim=True)) / s.w.std(1, keepdim=True), **W),
    "standardised with a gain": weight(
        lambda s: s.d * (s.w - s.w.mean(1, keepdim=True)) / (s.w.var(1, keepdim=True) + TINY).sqrt(), d=P(4, 1), **W
    ),
    "normalised": weight(lambda s: F.normalize(s.w, dim=1, eps=TINY), **W),
    "concatenated": weight(lambda s: torch.cat([s.w, s.v]), w=P(1, 3), v=P(3, 3)),
    "concatenated columns": weight(lambda s: torch.cat([s.w, s.v], 1), w=P(4, 1), v=P(4, 2)),
    "stacked": weight(lambda s: torch.stack([s.w, s.v, s.u, s.d]), w=P(3), v=P(3), u=P(3), d=P(3)),
    "repeated rows": weight(lambda s: s.w.repeat(2, 1), w=P(2, 3)),
    "expanded": weight(lambda s: s.w.expand(4, 3), w=P(1, 3)),
    "sliced": weight(lambda s: s.w[:4, 1:], w=P(5, 4)),
    "rows by index": weight(lambda s: s.w[torch.tensor([2, 0, 1, 2])], w=P(3, 3)),
    "reshaped": weight(lambda s: s.w.view(4, 3), w=P(12)),
    "an outer product": weight(lambda s: s.u[:, None] * s.v, u=P(4), v=P(3)),
    "a Kronecker product": weight(lambda s: torch.kron(s.u, s.v), u=P(2, 1), v=P(2, 3)),
    "squared": weight(lambda s: s.w**2, **W),
    "positive": weight(lambda s: s.w.abs(), **W),
    "positive by exp": weight(lambda s: s.w.exp(), **W),
    "bounded": weight(lambda s: s.w.tanh(), **W),
    "softmax of rows": weight(lambda s: s.w.softmax(1), **W),
    "symmetric": (lambda s, x: s.b(torch.relu(x @ (s.w + s.w.T))), {"w": P(3, 3), "b": L(3, 3)}),
    "a mean taken from columns": weight(lambda s: s.w - s.w.mean(0), **W),
    "a diagonal": (lambda s, x: s.b(torch.relu(x * s.w)), {"w": P(3), "b": L(3, 3)}),
    "a diagonal matrix": (lambda s, x: s.b(torch.relu(x @ torch.diag(s.w))), {"w": P(3), "b": L(3, 3)}),
    "a gain for rows": weight(lambda s: s.d[:, None] * s.w, d=P(4), **W),
    "a gain for all": weight(lambda s: s.d * s.w, d=P(), **W),
    "blocks": weight(lambda s: torch.block_diag(s.u, s.v), u=P(2, 1), v=P(2, 2)),
    "in bfloat16": (lambda s, x: s.b(torch.relu(F.linear(x.bfloat16(), s.w.bfloat16()).to(x))), {"b": L(4, 3), **W}),
}
for name, (forward, parts) in WEIGHTS.items():
    add = (
        CONSTANTS.sound
        if name in ("in bfloat16", "softmax of rows", "LoRA", "LoRA, scaled", "blocks")
        else CONSTANTS.complete
    )
    add(f"weight: {name}", forward, X, slow=name.startswith(("st", "co", "s", "b", "r")), **parts)
for name, head in {
    "x @ W.T": lambda s, h: h @ s.w.T,
    "x @ W.t()": lambda s, h: torch.matmul(h, s.w.t()),
    "mm": lambda s, h: torch.mm(h, s.w.t()),
    "(W @ x.T).T": lambda s, h: (s.w @ h.T).T,
    "a sum of products": lambda s, h: (h[:, None] * s.w).sum(-1),
    "einsum": lambda s, h: torch.einsum("bi,oi->bo", h, s.w),
    "cosine": lambda s, h: F.cosine_similarity(h[:, None], s.w[None], dim=-1, eps=TINY) * 3,
    "cosine by hand": lambda s, h: F.normalize(h, eps=TINY) @ F.normalize(s.w, eps=TINY).T,
    "distances": lambda s, h: -((h[:, None] - s.w) ** 2).sum(-1),
    "a bias of ones": lambda s, h: h @ s.w.T + torch.ones(3),
    "less its mean": lambda s, h: (lambda l: l - l.mean(1, keepdim=True))(h @ s.w.T),
    "two heads": lambda s, h: h @ s.w.T + h @ s.v.T,
    "divided by a constant": lambda s, h: (h @ s.w.T) / 0.5,
}.items():
    parts = {"a": L(3, 4), "w": P(3, 4)} | ({"v": P(3, 4)} if name == "two heads" else {})
    CONSTANTS.complete(f"head: {name}", lambda s, x, f=head: f(s, torch.relu(s.a(x))), X, **parts)
for name, parametrize in {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": lambda layer: parametrizations.orthogonal(layer, orthogonal_map="cayley", use_trivialization=False),
}.items():
    add = CONSTANTS.sound if name == "orthogonal" else CONSTANTS.complete
    add(
        f"parametrized: {name}",
        lambda s, x: s.b(torch.relu(s.a(x))),
        X,
        slow=True,
        b=L(3, 3),
        a=lambda f=parametrize: f(nn.Linear(3, 3)),
    )
CONSTANTS.complete(
    "embedding straight into RMSNorm",
    lambda s, x: s.b(torch.tanh(s.n(s.e(x)) @ s.h)).mean(1),
    tokens(8, 2, vocabulary=4),
    e=M(nn.Embedding, 4, 3),
    n=M(nn.RMSNorm, 3, eps=TINY),
    h=P(3, 2),
    b=L(2, 3),
)
CONSTANTS.complete(
    "embedding straight into LayerNorm",
    lambda s, x: s.b(torch.relu(s.n(s.e(x)))).mean(1),
    tokens(8, 2, vocabulary=4),
    e=M(nn.Embedding, 4, 3),
    n=M(nn.LayerNorm, 3, TINY),
    b=L(3, 3),
)
CONSTANTS.complete(
    "embedding straight into normalize",
    lambda s, x: s.b(torch.relu(F.normalize(s.e(x), dim=-1, eps=TINY))).mean(1),
    tokens(8, 2, vocabulary=4),
    e=M(nn.Embedding, 4, 3),
    b=L(3, 3),
)
CONSTANTS.complete(
    "a table of positions straight into RMSNorm",
    lambda s, x: s.b(torch.relu(F.rms_norm(s.t, (2,), None, TINY) + s.a(x))).mean(1),
    S,
    t=P(3, 2),
    a=L(2, 2),
    b=L(2, 3),
)
