"""Nets on which discovery went wrong in one way or another, and how many symmetries each has, found numerically.

Counts are the dimensions of the null spaces of θ⊙g and of g over random parameters and batches in float64, norms' eps
1e-30; a parameter without a gradient counts as translations.
"""

import torch
from torch import nn
from torch.nn import functional as F

from nets_more import floats
from nets_parts import L, M, Nets, P

EPS = 1e-30
COUNTED, DIMENSIONS = Nets(), {}
FIVE = {"a": L(4, 5), "b": L(5, 3)}
HEADS = {"q": L(2, 2), "k": L(2, 2), "v": L(2, 2), "b": L(2, 3)}
X, S = floats(8, 4), floats(4, 3, 2)


def tokens(*shape, of):
    return lambda g: torch.randint(of, shape, generator=g)


def counted(diagonal, translation, name, forward, inputs=X, sound=False, **parts):
    """`sound`: less may be found, where a finite transformation denies it or an input happens to be redundant."""
    (COUNTED.sound if sound else COUNTED.complete)(name, forward, inputs, **parts)
    DIMENSIONS[name] = (diagonal, translation)


def relative(s, x):
    table = s.t[torch.arange(3)[:, None] - torch.arange(3) + 2]
    return s.b(F.scaled_dot_product_attention(s.q(x), s.k(x), s.v(x), attn_mask=table).mean(1))


def recurrent(s, x):
    h = x.new_zeros(4, 3)
    for t in range(3):
        h = F.relu(s.i(x[:, t]) + s.h(h))
    return s.b(h)


def assigned(s, x):
    h = x.new_zeros(8, 3, 5)
    h[:, 1:] = F.relu(s.a(x[:, 1:]))
    return s.b(h.mean(1))


def messages(s, x):
    i, j = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0]), torch.tensor([1, 2, 3, 4, 5, 6, 7, 0, 4])
    h = s.a(x)
    return s.b(F.relu(torch.zeros_like(h).index_add(0, j, h[i])))


def cosines(s, x):
    return F.cosine_similarity(s.a(x)[:, None], s.w[None], dim=-1, eps=EPS) * s.t


def frozen(s, x):
    y = F.batch_norm(s.a(x), x.new_full((5,), 0.3), x.new_full((5,), 2.0), s.w, s.c, False, 0.1, EPS)
    return s.b(F.relu(y))


def upsampled(s, x):
    return s.b(F.interpolate(F.relu(s.a(x))[:, None], scale_factor=2)[:, 0])


# What was claimed and does not hold.
counted(4, 6, "a table of relative positions in attention", relative, S, t=P(5), **HEADS)
counted(1, 6, "channels in a random order", lambda s, x: s.b(F.relu(s.a(x))[:, torch.randperm(5)]), **FIVE)
counted(0, 31, "detach_()", lambda s, x: s.b(F.relu(s.a(x)).clone().detach_()), **FIVE)
counted(
    0,
    8,
    "addmm, beta=0.5, and a bias",
    lambda s, x: torch.addmm(s.c, x, s.w, beta=0.5) + s.d,
    w=P(4, 3),
    c=P(3),
    d=P(3),
)
counted(1, 13, "average over features", lambda s, x: s.b(F.avg_pool1d(s.a(x), 3, 1, 1)), **FIVE)
counted(5, 6, "h * one_hot(argmax h)", lambda s, x: s.b(s.a(x) * F.one_hot(s.a(x).argmax(1), 5)), sound=True, **FIVE)
# What raised an exception.
counted(1, 34, "times a constant matrix", lambda s, x: s.b(s.a(x) @ x.new_ones(5, 5)), **FIVE)
counted(
    7, 6, "a vector through a layer", lambda s, x: s.b(F.relu(F.linear(x, s.h(F.relu(s.z)).view(5, 4)))),
    z=P(2), h=L(2, 20), b=L(5, 3),
)  # fmt: skip
counted(
    0, 5, "an empty parameter", lambda s, x: s.b(torch.cat([s.r.expand(8, 0, 4), x], 1).mean(1)),
    floats(8, 2, 4), r=P(1, 0, 4), b=L(4, 3),
)  # fmt: skip
counted(5, 6, "samples picked by data", lambda s, x: s.b(F.relu(s.a(x))[x[:, 0] > -100]), **FIVE)
# What was missed.
counted(3, 7, "a recurrence from zeros", recurrent, S, i=L(2, 3), h=L(3, 3), b=L(3, 3))
counted(5, 6, "zeros added", lambda s, x: s.b(F.relu(s.a(x) + x.new_zeros(8, 5))), **FIVE)
counted(5, 6, "zeros filled in", lambda s, x: s.b(torch.where(x[:, :1] > 0, F.relu(s.a(x)), 0.0)), **FIVE)
counted(5, 6, "zeros, then parts assigned", assigned, floats(8, 3, 4), **FIVE)
counted(5, 5, "a head x @ W.T", lambda s, x: F.relu(s.a(x)) @ s.w.t(), a=L(4, 5), w=P(3, 5))
counted(7, 6, "a weight U @ V", lambda s, x: s.b(F.relu(F.linear(x, s.u @ s.v))), u=P(5, 2), v=P(2, 4), b=L(5, 3))
counted(
    6, 5, "a weight W + B @ A", lambda s, x: s.b(F.relu(F.linear(x, s.w + s.u @ s.v))),
    w=P(4, 4), u=P(4, 2), v=P(2, 4), b=L(4, 3),
)  # fmt: skip
counted(3, 4, "the largest of two", lambda s, x: s.b(s.a(x).view(8, 3, 2).max(-1)[0]), a=L(4, 6), b=L(3, 3))
counted(
    2, 11, "LSTM", lambda s, x: s.b(s.r(s.e(x))[0][:, -1]), tokens(4, 3, of=5),
    e=M(nn.Embedding, 5, 2), r=M(nn.LSTM, 2, 2, batch_first=True), b=L(2, 3),
)  # fmt: skip
counted(5, 6, "messages along edges", messages, **FIVE)
counted(3, 13, "upsampling", upsampled, a=L(4, 3), b=L(6, 3))
counted(
    7, 3, "tokens into a norm", lambda s, x: s.b(torch.tanh(s.n(s.e(x)) @ s.h)).mean(1), tokens(8, 2, of=4),
    e=M(nn.Embedding, 4, 3), n=M(nn.RMSNorm, 3, eps=EPS), h=P(3, 2), b=L(2, 3),
)  # fmt: skip
counted(3, 5, "addcmul", lambda s, x: torch.addcmul(s.a(x), s.d, s.e, value=0.5), a=L(4, 3), d=P(3), e=P(3))
counted(5, 6, "an alias", lambda s, x: s.b(torch.concat([F.relu(s.a(x))], 1)), **FIVE)
counted(4, 0, "cosines", cosines, a=L(4, 5), w=P(3, 5), t=P())
counted(5, 6, "fixed statistics", frozen, w=P(5), c=P(5), **FIVE)
