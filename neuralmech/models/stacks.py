"""Stacks of layers: the perceptron and the convolutional network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from neuralmech.errors import UserError
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


@dataclass
class ConvNetOptions(LayerOptions):
    """`depth` convolutions; the channels double, from `width`, with every one of them."""

    name: str = "convnet"
    width: int = 8
    depth: int = 3

    norms: ClassVar[tuple[str, ...]] = (*LayerOptions.norms, "instance")
    least_depth: ClassVar[int] = 1


class ConvNet(nn.Module):
    """`depth` × (3×3 convolution, norm, activation, 2×2 max-pooling while the image is large enough), classifier.

    The norms ``layer`` and ``rms`` are over the channels, at each pixel.
    """

    def __init__(self, options: ConvNetOptions, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        if len(shape) != 3:
            raise UserError(
                f"model=convnet needs images (channels, height, width), data has shape {tuple(shape)}; use model=mlp"
            )
        layers: list[nn.Module] = []
        channels, height, width = shape
        for i in range(options.depth):
            wider = options.width * 2**i
            if options.norm == "instance" and height * width == 1:
                raise UserError(
                    f"model.norm=instance has one pixel left to normalise at convolution {i + 1}; use model.depth={i}"
                )
            layers += [nn.Conv2d(channels, wider, 3, padding=1), *options.after(wider, images=True)]
            if min(height, width) >= 2:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            channels = wider
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * height * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        return self.classifier(self.features(x).flatten(1))
