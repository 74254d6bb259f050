"""Nets whose shapes or operations are unusual: discovery ends with claims that hold, or in one line for people."""

import torch
from torch import nn
from torch.nn import functional as F

from nets_more import floats, tokens
from nets_parts import AB, I, L, M, Nets, P, S, X

CRASHES = Nets()
HIDDEN = {
    "a matrix of ones after it": lambda s, h, x: h @ h.new_ones(4, 4),
    "a constant matrix before it": lambda s, h, x: h.new_ones(8, 8).tril() @ h,
    "a matrix from data": lambda s, h, x: h @ (x.T @ x).repeat(2, 2)[:4, :4],
    "a Gram matrix": lambda s, h, x: (h @ h.T) @ h,
    "a vector": lambda s, h, x: (h @ s.t)[:, None] * h,
    "a constant vector": lambda s, h, x: (h @ h.new_ones(4))[:, None] + h,
    "a vector before it": lambda s, h, x: h + h.new_ones(8) @ h,
    "dot of parameters": lambda s, h, x: h * torch.dot(s.t, s.t),
    "outer product": lambda s, h, x: h @ torch.outer(s.t, s.t),
    "F.linear with constants": lambda s, h, x: F.linear(h, h.new_ones(4, 4), s.t),
    "F.linear of a parameter": lambda s, h, x: h + F.linear(s.t, s.w),
    "F.linear of a parameter and bias": lambda s, h, x: torch.relu(h) + F.linear(s.t, s.w, s.t),
    "linear of constants": lambda s, h, x: h + F.linear(h.new_ones(4), s.w, s.t),
    "mv": lambda s, h, x: h + torch.mv(s.w, s.t),
    "matmul of vectors": lambda s, h, x: h * torch.matmul(s.t, s.t),
    "a rolled sum": lambda s, h, x: h + h.roll(1, 1),
    "kron": lambda s, h, x: h @ torch.kron(h.new_ones(2, 2), s.w[:2, :2]),
    "var(False)": lambda s, h, x: h / h.var(False),
    "var()": lambda s, h, x: h / h.var(),
    "std of a dim, False": lambda s, h, x: h / h.std(1, False, True),
    "mean of nothing": lambda s, h, x: h + h[:0].sum(0),
    "an empty slice": lambda s, h, x: torch.cat([h[:, :0], h, h[:, 4:]], 1),
    "a 0-d parameter": lambda s, h, x: torch.relu(h) * s.z + s.z,
    "a 0-d parameter alone": lambda s, h, x: torch.relu(h) + s.z.expand(4),
    "stack of 0-d parameters": lambda s, h, x: torch.relu(h) * torch.stack([s.z, s.z * 2, -s.z, s.z]),
    "complex numbers": lambda s, h, x: torch.view_as_real(torch.view_as_complex(h.view(8, 2, 2)) * 1j).flatten(1),
    "polar": lambda s, h, x: torch.polar(h.abs(), h).real,
    "a complex factor": lambda s, h, x: torch.view_as_real(
        torch.view_as_complex(h.view(8, 2, 2)) * torch.view_as_complex(s.w.view(8, 2)[:2])
    ).flatten(1),
    "fft": lambda s, h, x: torch.fft.rfft(h, dim=1).abs().repeat(1, 2)[:, :4],
    "fft and back": lambda s, h, x: torch.fft.irfft(torch.fft.rfft(torch.relu(h), dim=1), n=4, dim=1),
    "fftn of a mix": lambda s, h, x: torch.fft.fft2(h).real,
    "real of a complex product": lambda s, h, x: torch.complex(h, s.t.expand(8, 4)).abs(),
    "a boolean index on the batch": lambda s, h, x: torch.relu(h)[x[:, 0] > -100],
    "a boolean index on channels": lambda s, h, x: torch.relu(h)[:, torch.tensor([True, False, True, True])].repeat(
        1, 2
    )[:, :4],
    "masked_select": lambda s, h, x: h * h.masked_select(x[:, :1] > -100).sum(),
    "nonzero": lambda s, h, x: h + h[x[:, 0].nonzero()[:, 0]],
    "unique": lambda s, h, x: h * torch.unique(x.round()).numel(),
    "assignment by a mask": lambda s, h, x: torch.relu(h).index_put((x[:, 0] > 0,), s.t),
    "tensor_split": lambda s, h, x: torch.cat(h.tensor_split(3, 1)[::-1], 1),
    "meshgrid": lambda s, h, x: h * torch.meshgrid(s.t, s.t, indexing="ij")[0].sum(0),
    "cdist": lambda s, h, x: torch.cdist(h, s.w),
    "cross": lambda s, h, x: torch.cat([torch.linalg.cross(h[:, :3], x), h[:, :1]], 1),
    "inverse": lambda s, h, x: h @ torch.linalg.inv(s.w @ s.w.T + torch.eye(4).to(h)),
    "solve": lambda s, h, x: torch.linalg.solve(s.w, h.T).T,
    "qr": lambda s, h, x: h @ torch.linalg.qr(s.w)[0],
    "matrix_exp": lambda s, h, x: h @ torch.matrix_exp(s.w - s.w.T),
    "det": lambda s, h, x: h * torch.linalg.det(s.w),
    "trace": lambda s, h, x: h * s.w.trace(),
    "diag": lambda s, h, x: h @ torch.diag(s.t),
    "diag_embed": lambda s, h, x: (torch.diag_embed(h) @ s.t[:, None])[..., 0],
    "diagonal": lambda s, h, x: h * s.w.diagonal(),
    "tril": lambda s, h, x: torch.relu(h @ s.w.tril()),
    "tensordot": lambda s, h, x: torch.relu(torch.tensordot(h, s.w, 1)),
    "inner": lambda s, h, x: torch.inner(h, s.w),
    "chain_matmul": lambda s, h, x: torch.linalg.multi_dot([h, s.w, s.w]),
    "stft": lambda s, h, x: torch.view_as_real(
        torch.stft(h, 4, 4, window=h.new_ones(4), center=False, return_complex=True)
    ).flatten(1)[:, :4],
    "sparse": lambda s, h, x: torch.sparse.mm(torch.eye(8).to(h).to_sparse(), h),
    "a jagged list": lambda s, h, x: torch.stack([h[i, :2].sum() * h[i] for i in range(8)]),
    "numel": lambda s, h, x: h / h.numel() * len(h),
    "an int tensor added": lambda s, h, x: h + torch.arange(4),
    "bool times": lambda s, h, x: True * h,
    "vmap": lambda s, h, x: torch.vmap(lambda r: r * r.sum())(h),
    "grad inside": lambda s, h, x: torch.func.grad(lambda y: (torch.tanh(y) ** 2).sum())(h),
    "a float of a parameter": lambda s, h, x: h * s.t.detach().sum().item(),
    "einsum, trace": lambda s, h, x: h * torch.einsum("ii->", s.w),
    "einsum, dots": lambda s, h, x: torch.relu(torch.einsum("...i,ij->...j", h, s.w)),
    "einsum, three": lambda s, h, x: torch.einsum("bi,ij,j->bj", h, s.w, s.t),
    "einsum without arrow": lambda s, h, x: torch.einsum("bi,ij", h, s.w),
    "einsum, one": lambda s, h, x: torch.einsum("bi->b", h)[:, None] * h,
    "cond": lambda s, h, x: torch.cond(x.sum() > 0, lambda h: h.sin(), lambda h: h.cos(), (h,)),
}
for name, function in HIDDEN.items():
    CRASHES.sound(name, lambda s, x, f=function: s.b(f(s, s.a(x), x)), X, **AB, t=P(4), w=P(4, 4), z=P())
SHAPES = {
    "a latent through a layer": (
        lambda s, x: s.b(torch.relu(F.linear(x, s.h(torch.relu(s.z)).view(4, 3)))),
        X,
        {"z": P(2), "h": L(2, 12), "b": L(4, 3)},
    ),
    "a latent as a bias": (lambda s, x: s.b(torch.relu(s.a(x) + s.h(s.z))), X, {**AB, "z": P(2), "h": L(2, 4)}),
    "a latent through two layers": (
        lambda s, x: s.b(torch.relu(s.a(x) * s.h(torch.relu(s.g(s.z))))),
        X,
        {**AB, "z": P(2), "g": L(2, 3), "h": L(3, 4)},
    ),
    "an empty parameter": (
        lambda s, x: s.b(torch.cat([s.r.expand(4, 0, 2), x], 1).mean(1)),
        S,
        {"r": P(1, 0, 2), "b": L(2, 3)},
    ),
    "an empty layer": (
        lambda s, x: s.b(torch.relu(s.a(x))) + s.d(s.c(x)),
        X,
        {**AB, "c": L(3, 0), "d": L(0, 3, bias=False)},
    ),
    "an empty parameter that is not read": (lambda s, x: s.b(torch.relu(s.a(x))), X, {**AB, "r": P(0, 3)}),
    "one sample's logits": (lambda s, x: s.b(torch.relu(s.a(x))).sum(0, keepdim=True), X, AB),
    "conv without a batch": (
        lambda s, x: s.b(torch.relu(s.a(x)).mean((1, 2))[None]),
        floats(2, 4, 4),
        {"a": M(nn.Conv2d, 2, 3, 2), "b": L(3, 3)},
    ),
    "conv without a batch, BatchNorm of channels": (
        lambda s, x: s.b(torch.relu(s.a(x))),
        floats(3, 4),
        {"a": M(nn.Conv1d, 3, 4, 1), "b": L(4, 3)},
    ),
    "transposed conv without a batch": (
        lambda s, x: s.b(torch.relu(s.a(x)).mean((1, 2))[None]),
        floats(2, 3, 3),
        {"a": M(nn.ConvTranspose2d, 2, 3, 2), "b": L(3, 3)},
    ),
    "pool of a transposed layer": (lambda s, x: s.b(F.max_pool1d(torch.relu(s.a(x)).T, 2).T), X, AB),
    "adaptive pool to more": (
        lambda s, x: s.b(F.adaptive_avg_pool1d(torch.relu(s.a(x)), 6)),
        X,
        {"a": L(3, 4), "b": L(6, 3)},
    ),
    "tokens to a table by matmul": (
        lambda s, x: s.b(torch.relu(F.one_hot(x, 5).to(s.e) @ s.e)).mean(1),
        tokens(6, 3),
        {"e": P(5, 3), "b": L(3, 3)},
    ),
    "5-D": (
        lambda s, x: s.b(torch.relu(s.a(x)).mean((2, 3, 4))),
        floats(4, 1, 3, 3, 3),
        {"a": M(nn.Conv3d, 1, 3, 2), "b": L(3, 3)},
    ),
    "a parameter as logits": (lambda s, x: s.t.expand(8, 3) + 0 * x, X, {"t": P(3)}),
    "dicts inside": (lambda s, x: s.b({"h": torch.relu(s.a(x))}["h"]), X, AB),
    "a list of layers": (
        lambda s, x: s.b(torch.relu(s.l[1](torch.relu(s.l[0](x))))),
        X,
        {"l": lambda: nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 4)]), "b": L(4, 3)},
    ),
    "a ParameterList": (
        lambda s, x: s.b(torch.relu(x @ s.l[0] + s.l[1])),
        X,
        {"l": lambda: nn.ParameterList([torch.randn(3, 4), torch.randn(4)]), "b": L(4, 3)},
    ),
    "a frozen 0-d parameter": (
        lambda s, x: s.b(torch.relu(s.a(x)) * s.z),
        X,
        {**AB, "z": lambda: nn.Parameter(torch.tensor(0.3), requires_grad=False)},
    ),
    "a batch of one": (lambda s, x: s.b(torch.relu(s.a(x))), floats(1, 3), AB),
    "labels from data": (lambda s, x: s.b(torch.relu(s.a(x)))[torch.arange(8), :] * x.sum(), X, AB),
    "outputs with pixels, mse": (
        lambda s, x: s.b(torch.relu(s.a(x))),
        I,
        {"a": M(nn.Conv2d, 2, 3, 2), "b": M(nn.Conv2d, 3, 2, 1)},
    ),
    "weights of weights": (
        lambda s, x: F.linear(torch.relu(s.a(x)), F.linear(s.c.weight, s.c.weight)[:3]),
        X,
        {"a": L(3, 4), "c": L(4, 4)},
    ),
}
for name, (forward, inputs, parts) in SHAPES.items():
    CRASHES.complete(f"shape: {name}", forward, inputs, **parts)
SINGLE = {  # one number or one vector for a sample: no logits
    "numbers": lambda s, x: s.b(torch.relu(s.a(x)))[:, 0],
    "one number": lambda s, x: s.b(torch.relu(s.a(x))).sum(),
    "nothing of tensors": lambda s, x: 3.0,
    "integers": lambda s, x: s.b(s.a(x)).argmax(1),
    "None": lambda s, x: None,
}
