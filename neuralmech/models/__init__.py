"""Architectures by name. Adding one is a file with an options dataclass and a build function, listed here."""

from __future__ import annotations

from typing import Any

from torch import nn

from neuralmech.errors import UserError
from neuralmech.models.convnet import ConvNet, ConvNetOptions
from neuralmech.models.mlp import MLP, MLPOptions
from neuralmech.models.target import TargetOptions, build_target
from neuralmech.models.transformer import Transformer, TransformerOptions
from neuralmech.models.vision import VisionOptions, build_vision

# name → (options, what builds it from options, input shape, number of classes)
MODELS: dict[str, tuple[type, Any]] = {
    "mlp": (MLPOptions, MLP),
    "convnet": (ConvNetOptions, ConvNet),
    "transformer": (TransformerOptions, Transformer),
    "torchvision": (VisionOptions, build_vision),
    "_target_": (TargetOptions, build_target),
}
OF_TOKENS = ("transformer",)  # take tokens; a user's own model takes what it takes; all others, real numbers


def build_model(options: Any, shape: tuple[int, ...], classes: int, *, tokens: bool = False) -> nn.Module:
    """Build the architecture that `options` names, for samples of `shape`: tokens or real numbers.

    Raises
    ------
    UserError
        If the architecture cannot take such samples.
    """
    if options.name in OF_TOKENS and not tokens:
        raise UserError(f"model={options.name} needs tokens, data has real numbers {tuple(shape)}; use data=tokens")
    if options.name not in (*OF_TOKENS, "_target_") and tokens:
        raise UserError(f"model={options.name} needs real numbers, data has tokens; use model=transformer")
    return MODELS[options.name][1](options, shape, classes)


__all__ = [
    "MLP",
    "MODELS",
    "ConvNet",
    "ConvNetOptions",
    "MLPOptions",
    "Transformer",
    "TransformerOptions",
    "build_model",
]
