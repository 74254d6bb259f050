"""Multi-layer perceptron."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from neuralmech.models.parts import LayerOptions


@dataclass
class MLPOptions(LayerOptions):
    """`depth` hidden layers of `width` neurons; without an activation, a deep linear network."""

    name: str = "mlp"


class MLP(nn.Module):
    """Flatten, then `depth` × (linear, norm, activation), then the classifier."""

    def __init__(self, options: MLPOptions, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = math.prod(shape)
        for _ in range(options.depth):
            layers += [nn.Linear(width, options.width), *options.after(options.width, images=False)]
            width = options.width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of samples (batch, …)."""
        return self.classifier(self.features(x.flatten(1)))
