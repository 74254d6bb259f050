"""Architectures by name. Adding one is a file with an options dataclass and a build function, listed here."""

from __future__ import annotations

from typing import Any

from torch import nn

from neuralmech.models.convnet import ConvNet, ConvNetOptions
from neuralmech.models.mlp import MLP, MLPOptions
from neuralmech.models.target import TargetOptions, build_target
from neuralmech.models.vision import VisionOptions, build_vision

# name → (options, what builds it from options, input shape, number of classes)
MODELS: dict[str, tuple[type, Any]] = {
    "mlp": (MLPOptions, MLP),
    "convnet": (ConvNetOptions, ConvNet),
    "torchvision": (VisionOptions, build_vision),
    "_target_": (TargetOptions, build_target),
}


def build_model(options: Any, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the architecture that `options` names, for samples of `shape`.

    Raises
    ------
    UserError
        If the architecture cannot take samples of that shape.
    """
    return MODELS[options.name][1](options, shape, classes)


__all__ = ["MLP", "MODELS", "ConvNet", "ConvNetOptions", "MLPOptions", "build_model"]
