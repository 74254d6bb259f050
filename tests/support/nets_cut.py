"""Nets that cut or change the gradient: what is claimed must hold for the gradient and for the loss."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nets import TINY
from nets_parts import AB, ABC, L, M, Nets, P, X

CUT = Nets()


def without(function, x):
    with torch.no_grad():
        return function(x)


def without_decorated(s, x):
    @torch.no_grad()
    def inner():
        return s.c(x)

    return inner()


def with_grad_off(s, x):
    torch.set_grad_enabled(False)
    out = s.c(x)
    torch.set_grad_enabled(True)
    return out


def hooked(h, hook):
    if h.requires_grad:
        h.register_hook(hook)
    return h


class Reversed(torch.autograd.Function):
    """The identity with the opposite gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return -grad


class Rounded(torch.autograd.Function):
    """Rounding that gradients pass."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


CUTS = {
    "detach": lambda s, h, x: torch.relu(h).detach(),
    "detach_": lambda s, h, x: torch.relu(h).clone().detach_(),
    "detach_ of a branch": lambda s, h, x: torch.relu(h) + torch.relu(s.c(x)).clone().detach_(),
    "detach of a factor": lambda s, h, x: torch.relu(h) * s.c(x).detach(),
    "detach of its own norm": lambda s, h, x: h / h.norm(dim=1, keepdim=True).detach(),
    "detach of its own mean": lambda s, h, x: F.rms_norm(h - h.mean(1, keepdim=True).detach(), (4,), None, TINY),
    "detach of its largest": lambda s, h, x: (h - h.amax(1, keepdim=True).detach()).softmax(1),
    "detach of half": lambda s, h, x: torch.relu(0.5 * h + 0.5 * h.detach()),
    "data": lambda s, h, x: torch.relu(h) * s.c(x).data,
    "data of its own": lambda s, h, x: torch.relu(h) * torch.relu(h).data,
    "a weight's data": lambda s, h, x: torch.relu(F.linear(x, s.c.weight.data, s.a.bias)),
    "a weight detached in one of two uses": lambda s, h, x: torch.relu(h + F.linear(x.abs(), s.a.weight.detach())),
    "a bias detached": lambda s, h, x: torch.relu(F.linear(x, s.a.weight, s.a.bias.detach())),
    "a weight over its detached norm": lambda s, h, x: torch.relu(
        F.linear(x, s.a.weight / s.a.weight.detach().norm(dim=1, keepdim=True))
    ),
    "no_grad": lambda s, h, x: without(lambda x: torch.relu(s.a(x)), x),
    "no_grad of a branch": lambda s, h, x: torch.relu(h) + torch.relu(without(s.c, x)),
    "no_grad of a factor": lambda s, h, x: torch.relu(h) * without(s.c, x),
    "no_grad of its own norm": lambda s, h, x: h / without(lambda h: h.norm(dim=1, keepdim=True), h),
    "no_grad of its own mean": lambda s, h, x: F.rms_norm(
        h - without(lambda h: h.mean(1, keepdim=True), h), (4,), None, TINY
    ),
    "no_grad by a decorator": lambda s, h, x: torch.relu(h) * without_decorated(s, x),
    "no_grad of a weight's norm": lambda s, h, x: torch.relu(
        F.linear(x, s.a.weight / without(lambda w: w.norm(dim=1, keepdim=True), s.a.weight))
    ),
    "no_grad with grad inside": lambda s, h, x: torch.relu(h) + without(torch.enable_grad()(s.c), x),
    "set_grad_enabled": lambda s, h, x: torch.relu(h) * with_grad_off(s, x),
    "a hook that doubles": lambda s, h, x: torch.relu(hooked(h, lambda g: 2 * g)),
    "a hook that doubles one of two": lambda s, h, x: torch.relu(h + hooked(s.c(x), lambda g: 2 * g)),
    "a hook that clips": lambda s, h, x: hooked(torch.relu(h), lambda g: g.clamp(-0.01, 0.01)),
    "a hook on one branch": lambda s, h, x: F.rms_norm(h + hooked(s.d(h), lambda g: 0.5 * g), (4,), None, TINY),
    "a hook that masks": lambda s, h, x: torch.relu(hooked(h, lambda g: g * torch.tensor([1.0, 0.0, 1.0, 0.0]).to(g))),
    "a hook on a weight": lambda s, h, x: torch.relu(F.linear(x, hooked(s.a.weight * 1, lambda g: g.tril()), s.a.bias)),
    "a hook that only looks": lambda s, h, x: torch.relu(hooked(h, lambda g: None)),
    "straight through, round": lambda s, h, x: h + (h.round() - h).detach(),
    "straight through, sign": lambda s, h, x: h + (h.sign() - h).detach(),
    "straight through, sign with a scale": lambda s, h, x: h + (h.sign() * h.abs().mean(1, keepdim=True) - h).detach(),
    "straight through, clip": lambda s, h, x: h + (h.clamp(-0.5, 0.5) - h).detach(),
    "straight through, zeros": lambda s, h, x: torch.relu(h) - torch.relu(h).detach(),
    "straight through, one_hot": lambda s, h, x: h.softmax(1) + (F.one_hot(h.argmax(1), 4) - h.softmax(1)).detach(),
    "straight through, codebook": lambda s, h, x: h + (s.t[torch.cdist(h, s.t).argmin(1)] - h).detach(),
    "straight through, no_grad": lambda s, h, x: h + without(lambda h: h.round() - h, h),
    "straight through, a weight": lambda s, h, x: torch.relu(
        F.linear(x, s.a.weight + (s.a.weight.sign() - s.a.weight).detach(), s.a.bias)
    ),
    "straight through, a function": lambda s, h, x: Rounded.apply(h),
    "a gradient turned round": lambda s, h, x: torch.relu(Reversed.apply(h)),
    "a gradient turned round before a norm": lambda s, h, x: F.layer_norm(
        h + Reversed.apply(s.d(h)), (4,), None, None, TINY
    ),
}
for name, function in CUTS.items():
    parts = {"d": L(4, 4)} if "hook on one branch" in name or "before a norm" in name else {}
    parts |= {"t": P(5, 4)} if "codebook" in name else {}
    CUT.sound(name, lambda s, x, f=function: s.b(f(s, s.a(x), x)), X, **ABC, **parts)
for name, last in {
    "logits, half detached": lambda s, l: 0.5 * l + 0.5 * l.detach(),
    "logits less their largest, detached": lambda s, l: l - l.detach().amax(1, keepdim=True),
    "logits in no_grad and not": lambda s, l: l + without(lambda l: l.round(), l),
    "logits with a hook": lambda s, l: hooked(l, lambda g: g * torch.tensor([1.0, 2.0, 3.0]).to(g)),
    "logits with a hook on one use": lambda s, l: l + hooked(l * 1, lambda g: g * torch.tensor([1.0, 2.0, 3.0]).to(g)),
    "logits and their own clip in data": lambda s, l: l + l.data.clamp(-0.3, 0.3),
}.items():
    CUT.sound(name, lambda s, x, f=last: f(s, s.b(torch.relu(s.a(x)))), X, **AB)


def hook_module(hook):
    """A hook on the gradient that layer a passes back."""
    return {"ready": lambda net: None if net.a._backward_hooks else net.a.register_full_backward_hook(hook)}


CUT.sound(
    "a module's backward hook",
    lambda s, x: s.b(torch.relu(s.a(s.d(x)))),
    X,
    **AB,
    d=L(3, 3),
    **hook_module(lambda m, gi, go: (2 * gi[0],) if gi[0] is not None else None),
)
CUT.sound(
    "a module's backward pre-hook",
    lambda s, x: s.b(torch.relu(s.a(x))),
    X,
    **AB,
    ready=lambda net: (
        None if net.a._backward_pre_hooks else net.a.register_full_backward_pre_hook(lambda m, g: (g[0].tril(),))
    ),
)
CUT.sound(
    "a parameter's hook",
    lambda s, x: s.b(torch.relu(s.a(x))),
    X,
    **AB,
    ready=lambda net: None if net.a.weight._backward_hooks else net.a.weight.register_hook(torch.tril),
)
CUT.sound(
    "a parameter's hook that doubles",
    lambda s, x: s.b(torch.relu(s.a(x))),
    X,
    **AB,
    ready=lambda net: None if net.a.bias._backward_hooks else net.a.bias.register_hook(lambda g: 2 * g),
)
CUT.complete(
    "a module's forward hook",
    lambda s, x: s.b(torch.relu(s.a(x))),
    X,
    **AB,
    ready=lambda net: None if net.a._forward_hooks else net.a.register_forward_hook(lambda m, i, o: 2 * o),
)
CUT.complete(
    "a checkpoint", lambda s, x: s.b(checkpoint(lambda x: torch.relu(s.a(x)), x, use_reentrant=False)), X, **AB
)

BN = {"n": M(nn.BatchNorm1d, 4, TINY)}
MOVED = {"r": lambda: nn.Buffer(torch.ones(4)), "m": lambda: nn.Buffer(torch.zeros(4))}


def keep(buffer, value):
    """A running average that no gradient passes."""
    with torch.no_grad():
        buffer.mul_(0.5).add_(0.5 * value)
    return buffer


def assign(s, value):
    s.r = 0.9 * s.r + 0.1 * value.detach()
    return s.r


def counted(s):
    s.r += 1
    return s.r


STATE = {
    "running_mean after the norm": lambda s, h, x: s.n(h) + s.n.running_mean,
    "running_var after the norm": lambda s, h, x: s.n(h) * s.n.running_var,
    "running_mean before the norm": lambda s, h, x: s.n.running_mean + s.n(h),
    "running statistics of functional": lambda s, h, x: F.batch_norm(h, s.m, s.r, None, None, True, 0.5, TINY) * s.r,
    "the next norm with this one's statistics": lambda s, h, x: F.batch_norm(
        s.n(h) + x[:, :1], s.n.running_mean, s.n.running_var, None, None, False, 0.1, TINY
    ),
    "an own average": lambda s, h, x: h - keep(s.m, h.mean(0)),
    "an own scale": lambda s, h, x: h / keep(s.r, h.std(0)),
    "an own scale, read before": lambda s, h, x: (h / s.r.clone(), keep(s.r, h.abs().mean(0)))[0],
    "a buffer assigned": lambda s, h, x: torch.relu(h) * assign(s, h.abs().mean(0)),
    "a buffer copied": lambda s, h, x: torch.relu(h) * s.r.copy_(h.detach().abs().mean(0)),
    "a buffer of a parameter": lambda s, h, x: torch.relu(h) * keep(s.r, s.a.weight.norm(dim=1)),
}
for name, function in STATE.items():
    CUT.sound(f"state: {name}", lambda s, x, f=function: s.b(torch.relu(f(s, s.a(x), x))), X, **AB, **BN, **MOVED)
CUT.complete("state: an own count", lambda s, x: s.b(torch.relu(s.a(x)) / counted(s)), X, **AB, **MOVED)
CUT.complete(
    "state: a buffer that only watches",
    lambda s, x: s.b((torch.relu(s.a(x)), keep(s.m, s.a(x).mean(0)))[0]),
    X,
    **AB,
    **MOVED,
)
CUT.complete("state: a buffer as a factor", lambda s, x: s.b(torch.relu(s.a(x)) * s.r), X, **AB, **MOVED)


def halves(s, x):
    """Two parts copied into a tensor that is like another, which has a gradient."""
    h = s.a(x)
    k = h.new_empty(h.shape)
    k[..., :2].copy_(h[..., :2])
    k[..., 2:].copy_(2 * h[..., 2:])
    return s.b(torch.relu(k))


def over_cut(s, x):
    """A part of what was cut is written with a gradient."""
    h = s.a(x)
    k = h.detach().clone()
    k[..., :2].copy_(h[..., :2])
    return s.b(torch.relu(k))


CUT.complete("parts copied into a new tensor", halves, X, **AB)
CUT.sound("parts copied over what is cut", over_cut, X, **AB)
