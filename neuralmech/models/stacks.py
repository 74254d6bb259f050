"""Stacks of layers: the perceptron and the convolutional network."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn

from neuralmech.errors import UserError
from neuralmech.models.options import ConvNetOptions, MLPOptions
from neuralmech.models.parts import after


class MLP(nn.Module):
    """Flatten, then `depth` × (linear, norm, activation), then the classifier."""

    def __init__(self, options: MLPOptions, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = math.prod(shape)
        for _ in range(options.depth):
            layers += [nn.Linear(width, options.width), *after(options, options.width, images=False)]
            width = options.width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """Logits (batch, classes) of samples (batch, …)."""
        return self.classifier(self.features(x.flatten(1)))


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
            layers += [nn.Conv2d(channels, wider, 3, padding=1), *after(options, wider, images=True)]
            if min(height, width) >= 2:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            channels = wider
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * height * width, classes)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        return self.classifier(self.features(x).flatten(1))
