"""Architectures from elsewhere: torchvision's by name, with random weights, and a user's own module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from neuralmech.checks import check_choice
from neuralmech.errors import UserError
from neuralmech.targets import call, locate

ARCHITECTURES = (
    *(f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn")),
    "resnet18", "resnet34", "resnet50", "vit_b_16",
)  # fmt: skip


@dataclass
class VisionOptions:
    """`arch` out of torchvision; `norm` none takes the BatchNorm out of a ResNet."""

    name: str = "torchvision"
    arch: str = "resnet18"
    norm: str = "batch"

    def check(self) -> None:
        """Raise a `UserError` for unknown architectures."""
        check_choice("model.arch", self.arch, ARCHITECTURES)
        check_choice("model.norm", self.norm, ("batch", "none"))
        if self.norm == "none" and not self.arch.startswith("resnet"):
            raise UserError(f"model.norm=none is for ResNets; with model.arch={self.arch} leave it at batch")


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


@dataclass
class TargetOptions:
    """``_target_``: dotted path of a class or function; everything else in the group is its arguments."""

    name: str = "_target_"
    target: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise a `UserError` if there is nothing of that name."""
        locate("model", self.target)


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
