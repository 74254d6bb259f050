"""Small nets that have every kind of charge in every layout of weights, and batches for them."""

import torch
from torch import nn

from nets import Residual, ResidualConv, grouped
from neuralmech.models.transformer import Transformer, TransformerOptions


def transposed():
    return nn.Sequential(
        nn.ConvTranspose2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.BatchNorm2d(3), nn.ReLU(),
        nn.Flatten(), nn.Linear(75, 3),
    )  # fmt: skip


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.hidden = nn.Embedding(6, 4), nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.layer_norm(torch.relu(self.hidden(self.embed(x))), (4,)) @ self.embed.weight.T


def transformer():
    """More positions than a tile has columns or rows."""
    options = TransformerOptions(width=8, depth=1, heads=2, context=200)
    return Transformer(options, (9,), 5)


class Biased(nn.Module):
    """No translation but those of biases: nothing is known of what the outputs are for."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x):
        return torch.tanh(self.b(torch.relu(self.norm(self.a(x)))))


def frozen():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))
    net[2].bias.requires_grad_(False)
    return net


NETS = {
    "residual": (Residual, lambda: torch.randn(8, 4)),
    "residual_conv": (ResidualConv, lambda: torch.randn(6, 2, 4, 4)),
    "grouped": (grouped, lambda: torch.randn(6, 2, 4, 4)),
    "transposed": (transposed, lambda: torch.randn(2, 2, 4, 4)),
    "tied": (Tied, lambda: torch.randint(6, (2, 5))),
    "transformer": (transformer, lambda: torch.randint(5, (2, 9))),
    "biased": (Biased, lambda: torch.randn(8, 4)),
    "frozen": (frozen, lambda: torch.randn(8, 4)),
}
