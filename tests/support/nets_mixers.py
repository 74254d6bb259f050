"""Nets with linear maps of tokens, and of a residual stream, through which channels mix."""

import torch
from torch import nn
from torch.nn import functional as F

from nets_more import MORE, Net, floats


def tokenwise(bias):
    def forward(self, x):
        h = self.stem(x)
        h = self.mix(h.transpose(1, 2)).transpose(1, 2)
        return self.head(torch.relu(self.out(h)).mean(1))

    parts = {"stem": nn.Linear(3, 4), "mix": nn.Linear(5, 2, bias=bias), "out": nn.Linear(4, 3)}
    return Net(forward, head=nn.Linear(3, 3), **parts)


def of_two():
    """Two maps of tokens in a row, between which tokens mix, inside two of channels, between which these do."""

    def forward(self, x):
        h = self.second(self.first(self.stem(x).transpose(1, 2))).transpose(1, 2)
        return self.head(torch.tanh(self.out(h)).mean(1))

    parts = {"first": nn.Linear(5, 2, bias=False), "second": nn.Linear(2, 3, bias=False), "out": nn.Linear(3, 2)}
    return Net(forward, stem=nn.Linear(3, 3), head=nn.Linear(2, 3), **parts)


def flattened():
    """The last map reads tokens and channels together: both mix."""

    def forward(self, x):
        return self.head(torch.tanh(self.out(self.mix(self.stem(x).transpose(1, 2)).flatten(1))))

    parts = {"stem": nn.Linear(4, 3), "mix": nn.Linear(4, 2, bias=False), "out": nn.Linear(6, 2)}
    return Net(forward, head=nn.Linear(2, 3), **parts)


def projected_tokens():
    """Keys and values of fewer tokens, as linear maps make them (Linformer)."""

    def forward(self, x):
        k, v = (along(y.mT).mT for along, y in ((self.shorter, self.k(x)), (self.mean, self.v(x))))
        return self.head(self.o(F.scaled_dot_product_attention(self.q(x), k, v)).mean(1))

    parts = {name: nn.Linear(4, 2) for name in "qkv"}
    along = {name: nn.Linear(4, 3, bias=False) for name in ("shorter", "mean")}
    return Net(forward, o=nn.Linear(2, 2), head=nn.Linear(2, 3), **parts, **along)


def linear_residual():
    """Linear maps on both sides of 1 + W, which mixes with each, but is no weight."""

    def forward(self, x):
        h = self.stem(x)
        return self.head(torch.tanh(self.out(h + self.branch(h))))

    parts = {"stem": nn.Linear(4, 3), "branch": nn.Linear(3, 3, bias=False), "out": nn.Linear(3, 2)}
    return Net(forward, head=nn.Linear(2, 3), **parts)


MIXERS = {
    "mixer": (lambda: tokenwise(True), floats(6, 5, 3)),
    "mixer_no_bias": (lambda: tokenwise(False), floats(6, 5, 3)),
    "mixer_of_two": (of_two, floats(6, 5, 3)),
    "mixer_flattened": (flattened, floats(6, 4, 4)),
    "projected_tokens": (projected_tokens, floats(6, 4, 4)),
    "linear_residual": (linear_residual, floats(6, 4)),
}
ALL = MORE | MIXERS
