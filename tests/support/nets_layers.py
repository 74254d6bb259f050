"""Nets of torch's larger layers: recurrent, attention, norms of pixels, folds, bags, products of two."""

import torch
from torch import nn
from torch.nn import functional as F

from nets import TINY
from nets_more import floats, tokens
from nets_parts import AB, CONV, I, L, M, Nets, P, S, X

LAYERS = Nets()
for name, (kind, options) in {
    "RNN, tanh": (nn.RNN, {}),
    "RNN, relu": (nn.RNN, {"nonlinearity": "relu"}),
    "RNN, relu, no bias": (nn.RNN, {"nonlinearity": "relu", "bias": False}),
    "LSTM": (nn.LSTM, {}),
    "LSTM with a projection": (nn.LSTM, {"proj_size": 1}),
    "LSTM both ways": (nn.LSTM, {"bidirectional": True}),
    "LSTM, two layers": (nn.LSTM, {"num_layers": 2}),
    "GRU": (nn.GRU, {}),
    "GRU both ways": (nn.GRU, {"bidirectional": True}),
    "RNN, relu, two layers": (nn.RNN, {"nonlinearity": "relu", "num_layers": 2}),
    "RNN, relu, both ways": (nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
    "LSTM with dropout between": (nn.LSTM, {"num_layers": 2, "dropout": 0.4}),
}.items():
    width = (1 if "projection" in name else 2) * (2 if "both" in name else 1)
    add = LAYERS.sound if "projection" in name or "dropout" in name else LAYERS.complete
    add(
        name,
        lambda s, x: s.b(s.r(x)[0][:, -1]),
        floats(6, 3, 1),
        slow="layers" in name or "both" in name or "dropout" in name,
        r=M(kind, 1, 2, batch_first=True, **options),
        b=L(width, 3),
    )
LAYERS.complete(
    "LSTM, last states",
    lambda s, x: s.b(torch.cat(s.r(x)[1], 2)[0]),
    floats(6, 3, 1),
    r=M(nn.LSTM, 1, 2, batch_first=True),
    b=L(4, 3),
)
LAYERS.complete(
    "RNN, relu, a state given",
    lambda s, x: s.b(s.r(x, s.z.expand(1, 6, 2))[0][:, -1]),
    floats(6, 3, 1),
    z=P(2),
    r=M(nn.RNN, 1, 2, batch_first=True, nonlinearity="relu"),
    b=L(2, 3),
)
for name, (kind, pick) in {
    "RNNCell, relu": (M(nn.RNNCell, 3, 3, nonlinearity="relu"), lambda h: h),
    "LSTMCell": (M(nn.LSTMCell, 3, 2), lambda h: h[0]),
    "GRUCell": (M(nn.GRUCell, 3, 2), lambda h: h),
}.items():
    LAYERS.complete(name, lambda s, x, pick=pick: s.b(pick(s.r(x))), X, r=kind, b=L(3 if "RNN" in name else 2, 3))
LAYERS.complete(
    "LSTM of tokens",
    lambda s, x: s.b(s.r(s.e(x))[0][:, -1]),
    tokens(6, 3),
    e=M(nn.Embedding, 5, 2),
    slow=True,
    r=M(nn.LSTM, 2, 2, batch_first=True),
    b=L(2, 3),
)
E3 = floats(3, 3, 4)


def attended(s, x, **options):
    return s.b(s.m(x, x, x, need_weights=False, **options)[0].mean(1))


for name, (options, forward) in {
    "self": ({}, attended),
    "self, no bias": ({"bias": False}, attended),
    "weights needed": ({}, lambda s, x: s.b(s.m(x, x, x)[0].mean(1))),
    "masked": ({}, lambda s, x: attended(s, x, attn_mask=torch.ones(3, 3).triu(1).bool())),
    "a key left out": (
        {},
        lambda s, x: attended(s, x, key_padding_mask=torch.tensor([[False, False, True]]).expand(3, 3)),
    ),
    "biases of keys and values": ({"add_bias_kv": True}, attended),
    "a zero to attend": ({"add_zero_attn": True}, attended),
    "other widths": (
        {"kdim": 2, "vdim": 3},
        lambda s, x: s.b(s.m(x, x[..., :2], x[..., :3], need_weights=False)[0].mean(1)),
    ),
    "cross": ({}, lambda s, x: s.b(s.m(x[:, :1], x, x, need_weights=False)[0][:, 0])),
    "learned queries": (
        {},
        lambda s, x: s.b(s.m(s.z.expand(3, 1, 2), x[..., :2], x[..., :2], need_weights=False)[0][:, 0]),
    ),
}.items():
    LAYERS.complete(
        f"MultiheadAttention, {name}",
        forward,
        E3,
        slow=name not in ("self", "learned queries"),
        m=M(nn.MultiheadAttention, 2 if "queries" in name else 4, 2, batch_first=True, **options),
        b=L(2 if "queries" in name else 4, 3),
        **({"z": P(1, 1, 2)} if "queries" in name else {}),
    )
BLOCK = {"dropout": 0.0, "batch_first": True, "layer_norm_eps": TINY}
for name, options in {"norms after": {}, "norms first": {"norm_first": True}, "gelu": {"activation": "gelu"}}.items():
    LAYERS.complete(
        f"TransformerEncoderLayer, {name}",
        lambda s, x: s.b(s.t(x).mean(1)),
        floats(3, 3, 3),
        slow=True,
        t=M(nn.TransformerEncoderLayer, 3, 1, 2, **BLOCK, **options),
        b=L(3, 3),
    )
LAYERS.complete(
    "TransformerDecoderLayer",
    lambda s, x: s.b(s.t(x, x.flip(1)).mean(1)),
    floats(3, 3, 3),
    slow=True,
    t=M(nn.TransformerDecoderLayer, 3, 1, 2, **BLOCK),
    b=L(3, 3),
)
IMAGE = {
    "GroupNorm": lambda s, h: F.group_norm(h, 1, s.w, s.c, TINY),
    "GroupNorm, a group for each": lambda s, h: F.group_norm(h, 3, s.w, s.c, TINY),
    "InstanceNorm": lambda s, h: F.instance_norm(h, None, None, s.w, s.c, True, 0.1, TINY),
    "InstanceNorm plain": lambda s, h: F.instance_norm(h, eps=TINY),
    "LocalResponseNorm": lambda s, h: F.local_response_norm(h, 2, k=1.0),
    "LocalResponseNorm without k": lambda s, h: F.local_response_norm(h, 3, k=0.0),
    "GRN": lambda s, h: (
        h
        + s.w[:, None, None] * (h * (g := h.norm(dim=(2, 3), keepdim=True)) / g.mean(1, keepdim=True))
        + s.c[:, None, None]
    ),
    "squeeze and excite": lambda s, h: torch.relu(h) * s.d(h.mean((2, 3))).sigmoid()[..., None, None],
    "channels last": lambda s, h: F.layer_norm(h.permute(0, 2, 3, 1), (3,), s.w, s.c, TINY).permute(0, 3, 1, 2),
    "a layer scale": lambda s, h: torch.relu(h) * s.w[:, None, None],
    "a global maximum": lambda s, h: h.amax((2, 3), keepdim=True).expand_as(h),
    "channel shuffle": lambda s, h: torch.relu(h).view(4, 3, 1, 3, 3).transpose(1, 2).reshape(4, 3, 3, 3),
}
for name, function in IMAGE.items():
    add = LAYERS.sound if name == "LocalResponseNorm" else LAYERS.complete
    parts = {k: v for k, v in {"w": P(3), "c": P(3), "d": L(3, 3)}.items() if k in function.__code__.co_names}
    add(
        name,
        lambda s, x, f=function: s.b(torch.relu(f(s, s.a(x))).mean((2, 3))),
        I,
        slow="plain" in name or "each" in name,
        **CONV,
        **parts,
    )
LAYERS.complete(
    "BatchNorm frozen",
    lambda s, x: s.b(torch.relu(F.batch_norm(s.a(x), s.m, s.v, s.w, s.c, False, 0.1, TINY)).mean((2, 3))),
    I,
    **CONV,
    m=lambda: nn.Buffer(torch.rand(3)),
    v=lambda: nn.Buffer(torch.rand(3) + 0.5),
    w=P(3),
    c=P(3),
)
FOLDS = {
    "pixel_shuffle": (lambda s, h: F.pixel_shuffle(h, 2).mean((2, 3)), 4, 1),
    "pixel_unshuffle": (lambda s, h: F.pixel_unshuffle(h[..., :2, :2], 2).flatten(1), 1, 4),
    "unfold": (lambda s, h: F.unfold(h, 2).mean(2), 1, 4),
    "unfold and fold": (lambda s, h: F.fold(F.unfold(h, 2), (3, 3), 2).mean((2, 3)), 2, 2),
    "channel_shuffle": (lambda s, h: F.channel_shuffle(h, 2).mean((2, 3)), 4, 4),
    "unfold of a dim": (lambda s, h: h.unfold(2, 2, 1).mean((2, 3, 4)), 2, 2),
    "Upsample": (lambda s, h: F.interpolate(h, scale_factor=2).mean((2, 3)), 2, 2),
    "Upsample, bilinear": (lambda s, h: F.interpolate(h, scale_factor=2, mode="bilinear").mean((2, 3)), 2, 2),
    "grid_sample": (
        lambda s, h: F.grid_sample(
            h, torch.rand(4, 2, 2, 2, generator=torch.Generator().manual_seed(0)).to(h), align_corners=False
        ).mean((2, 3)),
        2,
        2,
    ),
    "max_unpool": (
        lambda s, h: F.max_unpool2d(*F.max_pool2d(h, 2, return_indices=True), 2, output_size=h.shape[2:]).mean((2, 3)),
        2,
        2,
    ),
}
for name, (function, channels, width) in FOLDS.items():
    add = (
        LAYERS.complete
        if name in ("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "Upsample", "unfold")
        else LAYERS.sound
    )
    add(name, lambda s, x, f=function: s.b(f(s, torch.relu(s.a(x)))), I, a=M(nn.Conv2d, 2, channels, 2), b=L(width, 3))
for name, (function, parts) in {
    "Bilinear": (lambda s, x: s.b(s.l(torch.relu(s.a(x)), x)), {"l": M(nn.Bilinear, 4, 3, 2), "b": L(2, 3)}),
    "Bilinear of itself": (
        lambda s, x: s.b(s.l(torch.relu(s.a(x)), torch.relu(s.a(x)))),
        {"l": M(nn.Bilinear, 4, 4, 2), "b": L(2, 3)},
    ),
}.items():
    add = LAYERS.sound if "itself" in name else LAYERS.complete  # which has each product of two twice
    add(name, function, X, slow=True, **{**AB, **parts})
for mode in ("sum", "mean", "max"):
    LAYERS.sound(
        f"EmbeddingBag, {mode}",
        lambda s, x: s.b(torch.relu(s.e(x))),
        tokens(8, 3),
        e=M(nn.EmbeddingBag, 5, 3, mode=mode),
        b=L(3, 3),
    )
LAYERS.sound(
    "EmbeddingBag, weighted",
    lambda s, x: s.b(torch.relu(s.e(x, per_sample_weights=s.t.expand(8, 3)))),
    tokens(8, 3),
    e=M(nn.EmbeddingBag, 5, 3, mode="sum"),
    b=L(3, 3),
    t=P(3),
)
LAYERS.complete(
    "tokens summed", lambda s, x: s.b(torch.relu(s.e(x).sum(1))), tokens(8, 3), e=M(nn.Embedding, 5, 3), b=L(3, 3)
)
LAYERS.complete(
    "tokens, the largest", lambda s, x: s.b(s.e(x).max(1)[0]), tokens(8, 3), e=M(nn.Embedding, 5, 3), b=L(3, 3)
)
for name, act in {
    "GLU": nn.GLU(),
    "CReLU": lambda h: torch.cat([torch.relu(h[:, :2]), torch.relu(-h[:, :2])], 1)[:, [0, 2]],
    "maxout": lambda h: h.view(8, 2, 2).max(-1)[0],
    "a gate of its own": lambda h: h[:, :2] * h[:, 2:],
    "a pair's norm": lambda h: h.view(8, 2, 2).norm(dim=-1),
    "a pair's softmax": lambda h: h.view(8, 2, 2).softmax(-1)[..., 0],
}.items():
    LAYERS.complete(name, lambda s, x, f=act: s.b(f(s.a(x))), X, a=L(3, 4), b=L(2, 3))
LAYERS.complete(
    "a graph's messages",
    lambda s, x: s.b(
        torch.relu(
            torch.zeros_like(s.a(x)).index_add(
                0, torch.tensor([1, 2, 3, 4, 5, 6, 7, 0, 4]), s.a(x)[[0, 1, 2, 3, 4, 5, 6, 7, 0]]
            )
        )
    ),
    X,
    **AB,
)
LAYERS.complete(
    "a graph's mean by an adjacency matrix",
    lambda s, x: s.b(torch.relu((torch.eye(8) + torch.eye(8).roll(1, 0)).to(x) / 2 @ s.a(x))),
    X,
    **AB,
)
LAYERS.complete(
    "attention pooling",
    lambda s, x: s.b((s.g(x).softmax(1) * torch.relu(s.a(x))).sum(1)),
    S,
    g=L(2, 1),
    a=L(2, 3),
    b=L(3, 3),
)
