"""Nets that compute with complex numbers: rotary positions, spectra, magnitudes."""

import torch
from torch import nn

from nets import TINY
from nets_more import floats
from nets_parts import AB, B, L, M, Nets, P, X

COMPLEX = Nets()
ANGLES = torch.polar(torch.ones(3, 1), torch.arange(3.0)[:, None])


def turned(s, h, by):
    """Pairs of channels as complex numbers times `by`, real again."""
    pairs = torch.view_as_complex(h.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * by.to(pairs.dtype)).flatten(-2)


def attended(s, x, by):
    q, k = (turned(s, part(x), by) for part in (s.q, s.k))
    return s.b((q @ k.mT).softmax(-1) @ s.v(x)).mean(1)


HEADS = {"q": L(3, 2), "k": L(3, 2), "v": L(3, 2), "b": L(2, 3)}
for name, by in {"a constant": lambda s: ANGLES, "a buffer": lambda s: s.f}.items():
    parts = {**HEADS, "f": B(ANGLES)} if "buffer" in name else HEADS
    COMPLEX.complete(f"rotary, {name}", lambda s, x, by=by: attended(s, x, by(s)), floats(4, 3, 3), **parts)
COMPLEX.complete(
    "rotary, computed",
    lambda s, x: attended(s, x, torch.polar(torch.ones(3, 1), torch.outer(torch.arange(3.0), torch.ones(1)))),
    floats(4, 3, 3),
    slow=True,
    **HEADS,
)


def pairs(h):
    return torch.view_as_complex(h.view(8, 2, 2))


for name, f in {
    "times i": lambda z: z * 1j,
    "times a number": lambda z: z * (2 - 1j),
    "times a real number": lambda z: z / 2 - z.flip(1),
    "conjugate": lambda z: z.conj() * 3,
    "reversed": lambda z: torch.stack([z[:, 1], z[:, 0]], 1),
    "times another": lambda z: z * z.roll(1, 1),
    "a difference": lambda z: z - z.conj(),
    "less a number": lambda z: z - 1,
    "plus i": lambda z: z + 1j,
    "negative": lambda z: -z,
    "detached": lambda z: z.detach(),
    "detached in part": lambda z: z * z.detach(),
}.items():
    # What cancels, is equal or is cut in part is not told.
    add = COMPLEX.sound if name in ("times another", "a difference", "detached in part") else COMPLEX.complete
    add(
        name, lambda s, x, f=f: s.b(torch.view_as_real(f(pairs(torch.relu(s.a(x))))).flatten(1)), X,
        slow=name not in ("times i", "detached"), **AB,
    )  # fmt: skip
for name, f in {
    "magnitude": lambda z: z.abs(),
    "times its conjugate": lambda z: (z * z.conj()).real,
    "real part": lambda z: (z * (1 + 1j)).real,
    "imaginary part": lambda z: (z * z).imag,
    "exp": lambda z: z.exp().abs(),
    "spectrum": lambda z: torch.fft.fft(z).abs(),
}.items():
    add = COMPLEX.sound if name in ("exp", "spectrum") else COMPLEX.complete
    add(name, lambda s, x, f=f: s.b(f(pairs(s.a(x)))), X, slow=name != "magnitude", a=L(3, 4), b=L(2, 3))
COMPLEX.complete(
    "of two layers",
    lambda s, x: s.b(torch.relu(torch.view_as_real(torch.complex(s.a(x), s.c(x)) * pairs(s.a(x)).sum()).flatten(1))), X,
    slow=True, a=L(3, 4), c=L(3, 4), b=L(8, 3),
)  # fmt: skip
COMPLEX.complete(
    "a complex factor of parameters",
    lambda s, x: s.b(torch.view_as_real(pairs(torch.relu(s.a(x))) * torch.complex(s.w, s.u)).flatten(1)), X,
    **AB, w=P(2), u=P(2),
)  # fmt: skip
COMPLEX.sound(
    "a complex parameter",
    lambda s, x: s.b(torch.view_as_real(pairs(torch.relu(s.a(x))) * torch.view_as_complex(s.w)).flatten(1)), X,
    **AB, w=P(2, 2),
)  # fmt: skip
COMPLEX.complete(
    "normalised", lambda s, x: s.b(s.n(turned(s, s.a(x), torch.tensor(1 + 2j)))), X, slow=True,
    n=M(nn.LayerNorm, 4, eps=TINY), **AB,
)  # fmt: skip
