"""Nets whose weights are stacks of matrices: heads, and experts among which data choose."""

import torch
from torch import nn
from torch.nn import functional as F

from nets import TINY
from nets_more import floats
from nets_parts import B, L, M, Nets, P

EXPERTS = Nets()
X = floats(9, 3)
TWO = {"r": L(3, 2), "u": P(2, 4, 3), "d": P(2, 3, 4)}


def grouped_mm(x, weight, offs):
    """Rows of x in groups that end at `offs`, each times its own matrix; zeros behind them."""
    out, start = x.new_zeros(x.shape[0], weight.shape[2]), 0
    for matrix, end in zip(weight, offs.tolist(), strict=True):
        out[start:end] = x[start:end] @ matrix
        start = end
    return out


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    x, weight, offs = ctx.saved_tensors
    bounds = list(zip([0, *offs.tolist()[:-1]], offs.tolist(), strict=True))
    of_weight = torch.stack([x[a:b].T @ grad[a:b] for a, b in bounds])
    return grouped_mm(grad, weight.transpose(1, 2), offs), of_weight, None


if not hasattr(torch.ops.transformers, "grouped_mm_fallback"):  # as that library defines it
    NAME = "transformers::grouped_mm_fallback"
    SCHEMA = "(Tensor x, Tensor weight, Tensor offs) -> Tensor"
    torch.library.custom_op(NAME, grouped_mm, mutates_args=(), schema=SCHEMA)
    torch.library.register_fake(NAME, lambda x, weight, offs: x.new_empty(x.shape[0], weight.shape[2]))
    torch.library.register_autograd(NAME, _backward, setup_context=_keep)
GROUPED = torch.ops.transformers.grouped_mm_fallback


def routed(s, x, expert_of, k=1):
    """Each row of x through its k best experts, weighed by the router; `expert_of(x, ends, expert)` is what they do."""
    experts = s.r.weight.shape[0]
    share, chosen = s.r(x).softmax(-1).topk(k)
    expert, order = chosen.reshape(-1).sort()
    ends = torch.histc(expert.float(), experts, 0, experts - 1).cumsum(0, dtype=torch.int32)
    y = expert_of(x[order // k], ends, expert) * share.reshape(-1)[order][:, None]
    back = torch.empty_like(order).index_put((order,), torch.arange(len(order)))
    return y[back].view(len(x), k, -1).sum(1)


def up_down(s, act):
    return lambda x, ends, _: GROUPED(act(GROUPED(x, s.u.mT, ends)), s.d.mT, ends)


def gated(h):
    gate, up = h.chunk(2, -1)
    return F.silu(gate) * up


for name, (act, more) in {
    "relu": (torch.relu, {}),
    "silu": (F.silu, {}),
    "a gate": (gated, {"d": P(2, 3, 2)}),
    "a gate of every second": (lambda h: F.gelu(h[..., ::2]) * h[..., 1::2], {"d": P(2, 3, 2)}),
    "a gate by hand": (lambda h: h[:, :2] * torch.sigmoid(h[:, :2]) * h.split([2, 2], -1)[1], {"d": P(2, 3, 2)}),
    "a sum over": (lambda h: torch.relu(h) / torch.relu(h).sum(-1, keepdim=True).clamp(min=1e-9), {}),
}.items():
    add = EXPERTS.sound if "over" in name else EXPERTS.complete
    add(f"of two, {name}", lambda s, x, act=act: routed(s, x, up_down(s, act)), X, **{**TWO, **more})
EXPERTS.complete(
    "of three, two of them", lambda s, x: routed(s, x, up_down(s, torch.relu), 2), X, slow=True, r=L(3, 3),
    u=P(3, 2, 3), d=P(3, 3, 2),
)  # fmt: skip
EXPERTS.complete(
    "stored the other way",
    lambda s, x: routed(s, x, lambda x, ends, _: GROUPED(torch.relu(GROUPED(x, s.u, ends)), s.d, ends)),
    X, r=L(3, 2), u=P(2, 3, 4), d=P(2, 4, 3),
)  # fmt: skip
BIASED = {**TWO, "c": P(2, 4), "e": P(2, 3)}


def biased(s, act):
    def expert(x, ends, which):
        h = act(GROUPED(x, s.u.mT, ends) + s.c[which])
        return GROUPED(h, s.d.mT, ends) + s.e[which]

    return expert


for name, act in {
    "relu": torch.relu,
    "a gate of sigmoid": lambda h: h * torch.sigmoid(2 * h),
    "tanh": torch.tanh,
}.items():
    EXPERTS.complete(
        f"with biases, {name}",
        lambda s, x, act=act: routed(s, x, biased(s, act)),
        X,
        slow=act is not torch.relu,
        **BIASED,
    )
EXPERTS.complete(
    "before a LayerNorm",
    lambda s, x: s.b(s.n(x + routed(s, x, biased(s, torch.relu)))),
    X, slow=True, n=M(nn.LayerNorm, 3, eps=TINY), b=L(3, 3), **BIASED,
)  # fmt: skip
EXPERTS.complete(
    "before an RMSNorm",
    lambda s, x: s.b(s.n(s.a(x) + routed(s, s.a(x), up_down(s, gated)))),
    X, slow=True, a=L(3, 3, bias=False), n=M(nn.RMSNorm, 3, eps=TINY), b=L(3, 3), **{**TWO, "d": P(2, 3, 2)},
)  # fmt: skip
EXPERTS.complete(
    "a layer in front and behind",
    lambda s, x: s.b(torch.relu(routed(s, torch.relu(s.a(x)), up_down(s, torch.relu)))),
    X, a=L(3, 3), b=L(3, 3), **TWO,
)  # fmt: skip
EXPERTS.complete(
    "a weight used twice",
    lambda s, x: routed(s, routed(s, x, up_down(s, torch.relu)), up_down(s, torch.relu)), X, slow=True, **TWO,
)  # fmt: skip
EXPERTS.sound("a stack decayed, too", lambda s, x: routed(s, x, up_down(s, torch.relu)) + s.d.square().mean(), X, **TWO)
EXPERTS.sound(
    "one expert of the stack elsewhere",
    lambda s, x: routed(s, x, up_down(s, torch.relu)) + torch.relu(x @ s.u[0].T) @ s.d[1].T, X, **TWO,
)  # fmt: skip


def by_sign(s, x, act, behind=0):
    """Rows with a negative first number go to the first expert, the others to the second, the last to none."""
    order = (x[:, 0] > 0).long().sort()[1]
    first = (x[:, 0] <= 0).sum()
    ends = torch.stack([first.clamp(max=len(x) - behind), torch.full_like(first, len(x) - behind)])
    h = act(GROUPED(x[order], s.u.mT, ends))
    return GROUPED(h, s.d.mT, ends) if "d" in s._parameters else s.b(h)


for name, (act, behind) in {
    "by a sign, relu": (torch.relu, 0),
    "by a sign, rows without": (torch.relu, 2),
    "by a sign, rows without, sigmoid": (lambda h: h * torch.sigmoid(h), 2),
}.items():
    parts = {"u": P(2, 4, 3), "d": P(2, 3, 4)}
    add = EXPERTS.sound if "sigmoid" in name else EXPERTS.complete
    add(name, lambda s, x, a=act, n=behind: by_sign(s, x, a, n) + s.z, X, z=P(3), **parts)
EXPERTS.sound(
    "rows without, exp, read by all",
    lambda s, x: by_sign(s, x, torch.exp, 2), X, u=P(2, 4, 3), b=L(4, 3),
)  # fmt: skip
STACK = floats(2, 8, 3)
for name, forward in {
    "bmm": lambda s, x: torch.bmm(torch.relu(torch.bmm(x, s.u)), s.d),
    "bmm, transposed": lambda s, x: torch.bmm(torch.relu(torch.bmm(x, s.d.mT)), s.u.mT),
    "matmul, all see the same": lambda s, x: torch.relu(x[0] @ s.u) @ s.d,
    "heads of a product": lambda s, x: torch.relu(x @ s.u).pow(2) @ s.d,
    "a stack that meets itself": lambda s, x: torch.relu(x @ s.u) @ s.u.mT,
}.items():
    EXPERTS.complete(
        f"stacks, {name}", lambda s, x, f=forward: s.b(f(s, x).sum(0)), STACK, slow="product" in name,
        u=P(2, 3, 4), d=P(2, 4, 3), b=L(3, 3),
    )  # fmt: skip
EXPERTS.complete(
    "stacks, frozen",
    lambda s, x: s.b(torch.bmm(torch.relu(torch.bmm(x, s.u)), s.d).sum(0)),
    STACK, u=lambda: nn.Parameter(torch.randn(2, 3, 4), requires_grad=False), d=P(2, 4, 3), b=L(3, 3),
)  # fmt: skip
EXPERTS.complete(
    "stacks, one is a buffer",
    lambda s, x: s.b(torch.bmm(torch.relu(torch.bmm(x, s.u)), s.d).sum(0)),
    STACK, u=B(torch.randn(2, 3, 4)), d=P(2, 4, 3), b=L(3, 3),
)  # fmt: skip
EXPERTS.complete(
    "stacks, LayerNorm for each head",
    lambda s, x: s.b(F.layer_norm(x @ s.u, (4,), eps=TINY).sum(0)), STACK, u=P(2, 3, 4), b=L(4, 3),
)  # fmt: skip
EXPERTS.complete(
    "stacks, a transposed convolution by hand",
    lambda s, x: F.conv_transpose1d(torch.relu(s.a(x)), s.w, groups=2)[:, :, 2],
    floats(6, 2, 4), a=M(nn.Conv1d, 2, 4, 1), w=P(4, 2, 3),
)  # fmt: skip
EXPERTS.complete(
    "messages of the last layer",
    lambda s, x: (x @ x.T).softmax(1) @ s.b(torch.relu(s.a(x))), X, a=L(3, 4), b=L(4, 3),
)  # fmt: skip
EXPERTS.complete(
    "attention by hand, the last layer",
    lambda s, x: ((s.q(x) @ s.k(x).mT).softmax(2) @ s.v(x)).flatten(0, 1), floats(4, 3, 3), slow=True,
    q=L(3, 2), k=L(3, 2), v=L(3, 3),
)  # fmt: skip
EXPERTS.complete(
    "a matrix of three axes seen as one",
    lambda s, x: s.b(torch.relu(F.linear(x, s.w.flatten(1)))), floats(6, 4), w=P(3, 2, 2), b=L(3, 3),
)  # fmt: skip
EXPERTS.complete(
    "a transposed convolution, the last layer",
    lambda s, x: s.w(torch.relu(s.a(x)))[:, :, 2],
    floats(6, 2, 4), a=M(nn.Conv1d, 2, 4, 1), w=M(nn.ConvTranspose1d, 4, 3, 3),
)  # fmt: skip
EXPERTS.complete(
    "a transposed convolution in groups, each normalised",
    lambda s, x: s.b(torch.relu(F.group_norm(s.w(torch.relu(s.a(x))), 2, eps=TINY)).mean(2)),
    floats(6, 2, 4), slow=True, a=M(nn.Conv1d, 2, 4, 1),
    w=M(nn.ConvTranspose1d, 4, 4, 2, stride=2, groups=2, bias=False), b=L(4, 3),
)  # fmt: skip
EXPERTS.complete(
    "rows by an index, each normalised",
    lambda s, x: s.b(torch.relu(F.layer_norm(s.a(x)[x[:, 0].sort()[1]], (4,), eps=TINY))), X, a=L(3, 4), b=L(4, 3)
)  # fmt: skip
EXPERTS.sound(
    "each number by an index, normalised",
    lambda s, x: s.b(F.layer_norm(s.a(x).gather(0, x[:, :1].sort(0)[1].expand(9, 4)), (4,), eps=TINY)), X,
    a=L(3, 4), b=L(4, 3),
)  # fmt: skip


def cut(s, x, y, sizes):
    """Attention whose queries, keys and values have one weight between them, cut before the linear maps."""
    parts = [F.linear(z, w, c) for z, w, c in zip((x, y, y), s.w.split(sizes), s.c.split(sizes), strict=True)]
    q, k, v = (p.unflatten(-1, (2, -1)).transpose(1, 2) for p in parts)
    return s.b((q @ k.mT).softmax(-1).matmul(v).transpose(1, 2).flatten(2)).mean(1)


for name, forward in {
    "attention": lambda s, x: cut(s, x, x.flip(1).square(), [4, 4, 4]),
    "a piece left over": lambda s, x: s.b(torch.relu(x @ s.w[:4].T) + x.square() @ s.w[4:8].T),
    "pieces that overlap": lambda s, x: s.b(torch.relu(x @ s.w[:6].T)[..., 2:] * (x.square() @ s.w[2:6].T)),
    "pieces of different sizes": lambda s, x: s.b(
        torch.relu(x @ s.w[:8].T).unflatten(-1, (4, 2)).amax(-1) + x.square() @ s.w[8:].T
    ),
    "a piece summed up by columns": lambda s, x: s.b(torch.relu(x @ s.w[:8].T)) + torch.relu(x[:, :1] * s.w[8:].sum()),
    "read whole, too": lambda s, x: s.b(torch.relu(x @ s.w[:8].T)[:, :4] * (x @ s.w[8:].T)) + s.w.square().sum(),
}.items():
    add = EXPERTS.complete if name in ("attention", "pieces of different sizes") else EXPERTS.sound
    more = {"b": L(8, 3)} if "columns" in name else {"b": L(4, 3)}
    shape = (4, 3, 3) if name == "attention" else (6, 3)
    add(f"cut, {name}", forward, floats(*shape), slow=name == "attention", w=P(12, 3), c=P(12), **more)
EXPERTS.complete(
    "cut, the last layer in two",
    lambda s, x: F.linear(torch.relu(s.a(x)), s.w[:3]) + F.linear(s.a(x).sin(), s.w[3:]), X, a=L(3, 4), w=P(6, 4),
)  # fmt: skip
EXPERTS.complete("cut, both read from the left", lambda s, x: torch.relu(x @ s.w[:3]) @ s.w[3:], X, w=P(6, 3))
EXPERTS.complete(
    "cut, of different sizes and read from the left",
    lambda s, x: torch.cat([torch.relu(x @ s.w[:3]), x.square()], 1) @ s.w[3:], X, w=P(9, 3),
)  # fmt: skip
