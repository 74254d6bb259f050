"""Small nets for tests: each with a batch shape that it accepts."""

from itertools import pairwise

import torch
from torch import nn

TINY = 1e-24  # a normalisation epsilon that float64 does not notice, but that silences a constant channel


class Residual(nn.Module):
    def __init__(self, width=5, inner=6, classes=3, inputs=4):
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(x + torch.relu(self.down(torch.relu(self.up(x)))))


class Glu(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down, self.head = (
            nn.Linear(4, 6),
            nn.Linear(4, 6),
            nn.Linear(6, 5),
            nn.Linear(5, 3),
        )

    def forward(self, x):
        return self.head(self.down(torch.nn.functional.silu(self.gate(x)) * self.up(x)))


class Squared(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.down(self.up(x).relu() ** 2)


class Shared(nn.Module):
    """One layer called twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.twice, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(self.twice(torch.relu(self.twice(x)))))


class ParallelBranches(nn.Module):
    """Two weights on one input meet at an add: they own their difference."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.relu(self.a(x) + self.b(x)))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle, self.head = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.relu(self.used(x)))


class ResidualConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.bn0 = nn.BatchNorm2d(3, eps=TINY)
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(3, eps=TINY)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        x = torch.relu(self.bn0(self.stem(x)))
        x = torch.relu(x + self.bn1(self.conv(x)))
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def frozen_middle():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))
    net[2].weight.requires_grad_(False)
    return net


def conv_bn():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, eps=TINY), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 2 * 2, 3),
    )  # fmt: skip


def pools():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(0.2), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 4, 2), nn.ReLU(),
        nn.AvgPool2d(2, 1), nn.AdaptiveMaxPool2d((2, 1)), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def grouped():
    return nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.LeakyReLU(0.3), nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.LeakyReLU(0.3),
        nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6, eps=TINY), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 4, 3),
    )  # fmt: skip


def mlp(*sizes, act=nn.ReLU, bias=True):
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b, bias=bias), act()]
    return nn.Sequential(*layers[:-1])


def normed():
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4, eps=TINY), nn.ReLU(), nn.Linear(4, 3))


def behind_tanh():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))


# name: (net, batch shape, diagonal and translation dimensions where they are known by hand)
NETS = {
    "relu_mlp": (lambda: mlp(5, 6, 4, 3), (16, 5), (10, 5)),
    "no_bias": (lambda: mlp(4, 5, 3, bias=False), (16, 4), (5, 5)),
    "deep_linear": (lambda: mlp(4, 5, 3, 3, act=nn.Identity), (16, 4), (8, 4)),
    "tanh_barrier": (behind_tanh, (16, 4), (5, 6)),
    "layer_norm": (normed, (16, 5), (5, 11)),
    "residual": (Residual, (16, 4), (11, 6)),
    "glu": (Glu, (16, 4), (11, 6)),
    "squared": (Squared, (16, 4), (5, 6)),
    "conv_bn": (conv_bn, (8, 1, 6, 6), None),
    "residual_conv": (ResidualConv, (6, 2, 4, 4), None),
    "pools": (pools, (6, 1, 9, 9), None),
    "grouped": (grouped, (6, 2, 4, 4), None),
    "shared": (Shared, (16, 4), None),
    "parallel": (ParallelBranches, (16, 4), None),
    "unused": (Unused, (16, 4), None),
    "frozen_middle": (frozen_middle, (16, 4), None),
}
