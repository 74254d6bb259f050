"""Architectures from elsewhere: torchvision's by name, with random weights, and a user's own module."""

from __future__ import annotations

from torch import nn

from neuralmech.errors import UserError
from neuralmech.models.options import TargetOptions, VisionOptions
from neuralmech.targets import call


def build_vision(options: VisionOptions, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the architecture for images (3, height, width).

    Raises
    ------
    UserError
        If the images do not fit.
    """
    from torchvision import models  # takes a second to import

    if len(shape) != 3 or shape[0] != 3 or min(shape[1:]) < 32:
        raise UserError(f"model.arch={options.arch} needs images of 3×32×32 or more, data has shape {tuple(shape)}")
    extra = {"norm_layer": nn.Identity} if options.norm == "none" else {}
    if options.arch == "vit_b_16":
        extra = {"image_size": shape[1]}
    return getattr(models, options.arch)(num_classes=classes, **extra)


def build_target(options: TargetOptions, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Call the target with its arguments.

    Raises
    ------
    UserError
        If the call fails or does not give a module.
    """
    model = call("model", options.target, options.arguments)
    if not isinstance(model, nn.Module):
        raise UserError(f"model._target_={options.target} gives a {type(model).__name__}, not a torch.nn.Module")
    return model
