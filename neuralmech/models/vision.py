"""torchvision's classification models by name, with random weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from neuralmech.checks import check_choice
from neuralmech.errors import UserError

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
        If torchvision is missing or the images do not fit.
    """
    try:
        from torchvision import models
    except ImportError:
        raise UserError("model=torchvision needs torchvision; pip install torchvision") from None
    if len(shape) != 3 or shape[0] != 3 or min(shape[1:]) < 32:
        raise UserError(f"model.arch={options.arch} needs images of 3×32×32 or more, data has shape {tuple(shape)}")
    extra = {"norm_layer": nn.Identity} if options.norm == "none" else {}
    if options.arch == "vit_b_16":
        extra = {"image_size": shape[1]}
    return getattr(models, options.arch)(num_classes=classes, **extra)
