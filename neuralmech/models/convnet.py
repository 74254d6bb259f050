"""A small convolutional network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from neuralmech.checks import check_at_least, check_choice
from neuralmech.errors import UserError
from neuralmech.models.parts import ACTIVATIONS, NORMS


@dataclass
class ConvNetOptions:
    """`depth` convolutions; the channels double, from `width`, with every one of them."""

    name: str = "convnet"
    width: int = 8
    depth: int = 3
    activation: str = "relu"
    norm: str = "none"

    def check(self) -> None:
        """Raise a `UserError` for values that make no network."""
        check_at_least("model.width", self.width, 1)
        check_at_least("model.depth", self.depth, 1)
        check_choice("model.activation", self.activation, ACTIVATIONS)
        check_choice("model.norm", self.norm, NORMS)


class ConvNet(nn.Module):
    """`depth` × (3×3 convolution, norm, activation, 2×2 max-pooling while the image is large enough), classifier."""

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
            layers.append(nn.Conv2d(channels, wider, 3, padding=1))
            if options.norm == "batch":
                layers.append(nn.BatchNorm2d(wider))
            layers.append(ACTIVATIONS[options.activation]())
            if min(height, width) >= 2:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            channels = wider
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * height * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        return self.classifier(self.features(x).flatten(1))
