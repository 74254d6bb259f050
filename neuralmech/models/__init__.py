"""Architectures by name. One is a dataclass of options and what builds a module from them, listed here.

Options come without torch; what builds a module is imported when one is built.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuralmech.errors import UserError
from neuralmech.models.options import ConvNetOptions, MLPOptions, TargetOptions, TransformerOptions, VisionOptions

if TYPE_CHECKING:
    from torch import nn

# name → (its options; where that is which builds a module from options, the shape of a sample and the classes' number)
MODELS: dict[str, tuple[type, str]] = {
    "mlp": (MLPOptions, "stacks.MLP"),
    "convnet": (ConvNetOptions, "stacks.ConvNet"),
    "transformer": (TransformerOptions, "transformer.Transformer"),
    "torchvision": (VisionOptions, "foreign.build_vision"),
    "_target_": (TargetOptions, "foreign.build_target"),
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
        raise UserError(
            f"model={options.name} needs tokens, data has real numbers {tuple(shape)}; use data=tokens or text"
        )
    if options.name not in (*OF_TOKENS, "_target_") and tokens:
        raise UserError(f"model={options.name} needs real numbers, data has tokens; use model=transformer")
    module, _, name = MODELS[options.name][1].partition(".")
    return getattr(import_module(f"neuralmech.models.{module}"), name)(options, shape, classes)


__all__ = [
    "MODELS",
    "ConvNetOptions",
    "MLPOptions",
    "TransformerOptions",
    "build_model",
]
