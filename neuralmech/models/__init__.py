"""Architectures by name. One is a dataclass of options and what builds a module from them, listed here."""

from __future__ import annotations

from typing import Any

from torch import nn

from neuralmech.errors import UserError
from neuralmech.models.foreign import TargetOptions, VisionOptions, build_target, build_vision
from neuralmech.models.stacks import MLP, ConvNet, ConvNetOptions, MLPOptions
from neuralmech.models.transformer import Transformer, TransformerOptions

# name → (its options; what builds a module from options, the shape of a sample and the number of classes)
MODELS: dict[str, tuple[type, Any]] = {
    "mlp": (MLPOptions, MLP),
    "convnet": (ConvNetOptions, ConvNet),
    "transformer": (TransformerOptions, Transformer),
    "torchvision": (VisionOptions, build_vision),
    "_target_": (TargetOptions, build_target),
}
OF_TOKENS = ("transformer",)  # take tokens, the others real numbers; what a user's own model takes nobody knows


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
