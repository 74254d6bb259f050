"""Multi-layer perceptron."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from neuralmech.checks import check_at_least, check_choice
from neuralmech.models.parts import ACTIVATIONS, NORMS


@dataclass
class MLPOptions:
    """`depth` hidden layers of `width` neurons."""

    name: str = "mlp"
    width: int = 64
    depth: int = 2
    activation: str = "relu"
    norm: str = "none"

    def check(self) -> None:
        """Raise a `UserError` for values that make no network."""
        check_at_least("model.width", self.width, 1)
        check_at_least("model.depth", self.depth, 0)
        check_choice("model.activation", self.activation, ACTIVATIONS)
        check_choice("model.norm", self.norm, NORMS)


class MLP(nn.Module):
    """Flatten, then `depth` × (linear, norm, activation), then the classifier."""

    def __init__(self, options: MLPOptions, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = math.prod(shape)
        for _ in range(options.depth):
            layers.append(nn.Linear(width, options.width))
            if options.norm == "batch":
                layers.append(nn.BatchNorm1d(options.width))
            layers.append(ACTIVATIONS[options.activation]())
            width = options.width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of samples (batch, …)."""
        return self.classifier(self.features(x.flatten(1)))
