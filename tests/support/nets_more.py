"""More small nets: the ops that real models use, one idea each. name → (build, inputs(generator))."""

import torch
from torch import nn
from torch.nn import functional as F

from nets import TINY, mlp


def floats(*shape):
    return lambda g: torch.randn(*shape, generator=g, dtype=torch.float64)


def tokens(*shape, vocabulary=5):
    return lambda g: torch.randint(vocabulary, shape, generator=g)


class Net(nn.Module):
    """Submodules by keyword and a forward function of (self, x)."""

    def __init__(self, forward, **parts):
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                part = nn.Parameter(part)
            setattr(self, name, part)

    def forward(self, x):
        return self._forward(self, x)


class HandRMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + TINY) * self.weight


class Attention(nn.Module):
    def __init__(self, width=4, heads=2, kv=2, rotary=False, by_hand=False, bias=True):
        super().__init__()
        self.heads, self.kv, self.size, self.rotary, self.by_hand = heads, kv, width // heads, rotary, by_hand
        self.q = nn.Linear(width, width, bias=bias)
        self.k, self.v = (nn.Linear(width, kv * self.size, bias=bias) for _ in range(2))
        self.o = nn.Linear(width, width, bias=bias)

    def turn(self, x):
        t = torch.arange(x.shape[-2], dtype=x.dtype)[:, None]
        half = x.shape[-1] // 2
        low, high = x[..., :half], x[..., half:]
        return torch.cat([low * t.cos() - high * t.sin(), high * t.cos() + low * t.sin()], -1)

    def forward(self, x):
        split = lambda y, n: y.unflatten(-1, (n, self.size)).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.q(x), self.heads), split(self.k(x), self.kv), split(self.v(x), self.kv)
        if self.rotary:
            q, k = self.turn(q), self.turn(k)
        if self.by_hand:
            out = torch.softmax(q @ k.transpose(-1, -2) / self.size**0.5, dim=-1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.heads != self.kv)
        return self.o(out.transpose(1, 2).flatten(2))


def attention(**options):
    def forward(self, x):
        x = x + self.attend(self.n1(x))
        return self.head(self.n2(x).mean(1))

    return lambda: Net(
        forward, attend=Attention(**options), n1=nn.LayerNorm(4, eps=TINY), n2=nn.LayerNorm(4, eps=TINY),
        head=nn.Linear(4, 3),
    )  # fmt: skip


def rms_block(norm):
    def forward(self, x):
        x = self.stem(x)
        h = self.norm(x)
        return self.head(x + self.down(F.silu(self.gate(h)) * self.up(h)))

    return lambda: Net(
        forward, stem=nn.Linear(3, 4), norm=norm(), gate=nn.Linear(4, 3), up=nn.Linear(4, 3), down=nn.Linear(3, 4),
        head=nn.Linear(4, 3),
    )  # fmt: skip


def language_model(tied):
    def forward(self, x):
        h = self.embed(x)
        h = self.norm(h + self.down(torch.relu(self.up(h))))
        return F.linear(h, self.embed.weight if tied else self.head.weight)

    parts = {"embed": nn.Embedding(5, 4), "up": nn.Linear(4, 3), "down": nn.Linear(3, 4)}
    if not tied:
        parts["head"] = nn.Linear(4, 5, bias=False)
    return Net(forward, norm=nn.LayerNorm(4, eps=TINY), **parts)


def class_token():
    def forward(self, x):
        h = self.patch(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), 1, 4), h], 1) + self.position
        return self.head(self.norm(h + self.attend(h))[:, 0])

    return Net(
        forward, patch=nn.Conv2d(1, 4, 2, 2), token=torch.randn(1, 1, 4), position=torch.randn(1, 5, 4),
        attend=Attention(), norm=nn.LayerNorm(4, eps=TINY), head=nn.Linear(4, 3),
    )  # fmt: skip


def dense_block():
    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.cat([x, torch.relu(self.b(x))], 1)
        x = torch.cat([x, torch.relu(self.c(x))], 1)
        return self.head(x)

    return Net(forward, a=nn.Linear(4, 3), b=nn.Linear(3, 2), c=nn.Linear(5, 2), head=nn.Linear(7, 3))


def projected_bias():
    """A bias behind a 1×1 convolution into BatchNorm has no gradient either."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4, eps=TINY),
        nn.LeakyReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def normalised(norm):
    return lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), norm(), nn.LeakyReLU(), nn.Conv2d(4, 2, 2), nn.Flatten(), nn.Linear(8, 3)
    )


def convolutions(conv, rank):
    return lambda: nn.Sequential(
        conv(1, 3, 2), nn.ReLU(), conv(3, 2, 2), nn.LeakyReLU(), nn.Flatten(), nn.Linear(2 * 2**rank, 3)
    )


def transposed():
    return nn.Sequential(
        nn.ConvTranspose2d(2, 4, 2, stride=2, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 2, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def shuffled():
    return nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.PixelShuffle(2), nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32, 3),
    )  # fmt: skip


def chunked_glu():
    def forward(self, x):
        gate, up = self.both(x).chunk(2, dim=-1)
        return self.down(torch.sigmoid(gate) * up)

    return Net(forward, both=nn.Linear(4, 8), down=nn.Linear(4, 3))


def stochastic():
    def forward(self, x):
        h = self.stem(x)
        keep = torch.empty(len(x), 1, dtype=x.dtype).bernoulli_(0.6).div_(0.6)
        return self.head(self.norm(h + keep * self.branch(torch.relu(h))))

    return Net(
        forward, stem=nn.Linear(3, 4), branch=nn.Linear(4, 4), norm=nn.LayerNorm(4, eps=TINY), head=nn.Linear(4, 3)
    )


def weight_normed_whole():
    net = mlp(4, 5, 3)
    nn.utils.parametrizations.weight_norm(net[0], dim=None)  # one norm for the whole matrix
    nn.utils.parametrizations.weight_norm(net[2], dim=1)
    return net


def weight_normed():
    net = mlp(4, 5, 4, 3)
    nn.utils.parametrizations.weight_norm(net[0])
    nn.utils.parametrizations.weight_norm(net[2])
    return net


def spectral_normed():
    """W/σ(W) with σ = uᵀWv, where u and v come from a power iteration that gradients do not pass."""
    net = mlp(4, 5, 4, 3)
    nn.utils.parametrizations.spectral_norm(net[0])
    nn.utils.parametrizations.spectral_norm(net[2], n_power_iterations=2)
    return net


def spectral_normed_convolutions():
    """The last one: a head whose columns are no longer free to shift."""
    normalised = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.ReLU(), normalised(nn.Conv2d(2, 3, 2, stride=2)), nn.LeakyReLU(),
        normalised(nn.Conv2d(3, 4, 2), dim=1), nn.LeakyReLU(), nn.Flatten(), normalised(nn.Linear(4, 3)),
    )  # fmt: skip


def hooked_spectral_norm():
    """The older hook that computes the weight before forward()."""
    net = mlp(4, 4, 3)
    nn.utils.spectral_norm(net[0])
    return net


def transposed_weights():
    def forward(self, x):
        return torch.addmm(self.c, torch.relu(x @ self.a + self.b), self.d)

    return Net(forward, a=torch.randn(4, 5), b=torch.randn(5), c=torch.randn(3), d=torch.randn(5, 3))


def powers():
    def forward(self, x):
        h = self.b(self.a(x).abs().pow(3))
        return self.c(h.pow(2)) / 2 - self.d(F.prelu(h, self.slope))

    return Net(
        forward, a=nn.Linear(3, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 3), d=nn.Linear(4, 3), slope=torch.tensor([0.3])
    )


def squared_branch():
    """The scale of the stream moves all of b alike, b's rows by half as much as its columns."""

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.head(self.norm(h + self.b(h).pow(2)))

    return Net(
        forward,
        a=nn.Linear(4, 4),
        b=nn.Linear(4, 4, bias=False),
        norm=nn.LayerNorm(4, eps=TINY),
        head=nn.Linear(4, 3),
    )


def cosine_head():
    def forward(self, x):
        h = F.normalize(self.b(torch.relu(self.a(x))), dim=-1)
        return h @ F.normalize(self.classes, dim=-1).T * self.temperature

    return Net(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4), classes=torch.randn(3, 4), temperature=torch.tensor(2.0))


def prototypes(p=2.0):
    """Distances ignore what moves points and prototypes alike, and scale with them."""

    def forward(self, x):
        return self.head(torch.cdist(self.b(torch.relu(self.a(x))), self.prototypes, p))

    return lambda: Net(
        forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2), prototypes=torch.randn(5, 2), head=nn.Linear(5, 3)
    )


def lengths_of_pairs():
    forward = lambda s, x: s.c(torch.hypot(s.a(x), s.b(x)))  # noqa: E731
    return Net(forward, a=nn.Linear(3, 4), b=nn.Linear(3, 4), c=nn.Linear(4, 3))


MORE = {
    "leaky_at_random": (lambda: nn.Sequential(nn.Linear(3, 4), nn.RReLU(), nn.Linear(4, 3)), floats(6, 3)),
    "attention": (attention(), floats(4, 5, 4)),
    "attention_by_hand": (attention(by_hand=True), floats(4, 5, 4)),
    "attention_grouped": (attention(kv=1), floats(4, 5, 4)),
    "attention_rotary": (attention(heads=1, kv=1, rotary=True), floats(4, 5, 4)),
    "rms_norm": (rms_block(lambda: nn.RMSNorm(4, eps=TINY)), floats(12, 3)),
    "rms_norm_by_hand": (rms_block(lambda: HandRMSNorm(4)), floats(12, 3)),
    "language_model": (lambda: language_model(False), tokens(6, 3)),
    "language_model_tied": (lambda: language_model(True), tokens(6, 3)),
    "class_token": (class_token, floats(4, 1, 4, 4)),
    "dense_block": (dense_block, floats(12, 4)),
    "projected_bias": (projected_bias, floats(6, 2, 4, 4)),
    "group_norm": (normalised(lambda: nn.GroupNorm(1, 4, eps=TINY)), floats(4, 1, 5, 5)),
    "instance_norm": (normalised(lambda: nn.InstanceNorm2d(4, eps=TINY, affine=True)), floats(4, 1, 5, 5)),
    "batch_norm_plain": (normalised(lambda: nn.BatchNorm2d(4, eps=TINY, affine=False)), floats(4, 1, 5, 5)),
    "conv1d": (convolutions(nn.Conv1d, 1), floats(6, 1, 4)),
    "conv3d": (convolutions(nn.Conv3d, 3), floats(6, 1, 4, 4, 4)),
    "transposed": (transposed, floats(6, 2, 2, 2)),
    "shuffled": (shuffled, floats(6, 1, 2, 2)),
    "chunked_glu": (chunked_glu, floats(12, 4)),
    "stochastic": (stochastic, floats(8, 3)),
    "temperature": (
        lambda: Net(lambda s, x: s.b(torch.relu(s.a(x))) * s.t, a=nn.Linear(4, 4), b=nn.Linear(4, 3), t=torch.ones(1)),
        floats(12, 4),
    ),
    "divided by a temperature": (
        lambda: Net(lambda s, x: s.b(torch.relu(s.a(x))) / s.t, a=nn.Linear(4, 4), b=nn.Linear(4, 3), t=torch.ones(())),
        floats(12, 4),
    ),
    "a temperature for each class": (
        lambda: Net(lambda s, x: s.t * s.b(torch.relu(s.a(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 3), t=torch.ones(3)),
        floats(12, 4),
    ),
    "a bias times itself": (
        lambda: Net(
            lambda s, x: s.b(torch.relu(s.a(x))) + s.t * s.t, a=nn.Linear(4, 4), b=nn.Linear(4, 3), t=torch.ones(3)
        ),
        floats(12, 4),
    ),
    "glu": (lambda: nn.Sequential(nn.Linear(4, 6), nn.GLU(), nn.Linear(3, 3)), floats(12, 4)),
    "glu of channels": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 2), nn.GLU(1), nn.Flatten(), nn.Linear(4, 3)),
        floats(12, 2, 3),
    ),
    "weight_norm": (weight_normed, floats(12, 4)),
    "weight_norm of the whole": (weight_normed_whole, floats(12, 4)),
    "spectral_norm": (spectral_normed, floats(12, 4)),
    "spectral_norm_convolutions": (spectral_normed_convolutions, floats(6, 1, 4, 4)),
    "spectral_norm_hook": (hooked_spectral_norm, floats(12, 4)),
    "transposed_weights": (transposed_weights, floats(12, 4)),
    "powers": (powers, floats(12, 3)),
    "squared_branch": (squared_branch, floats(12, 4)),
    "prototypes": (prototypes(), floats(12, 3)),
    "prototypes, by their largest coordinate": (prototypes(p=float("inf")), floats(12, 3)),
    "lengths of pairs": (lengths_of_pairs, floats(12, 3)),
    "cosine_head": (cosine_head, floats(12, 4)),
}
