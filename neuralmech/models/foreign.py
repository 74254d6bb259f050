"""Architectures from elsewhere: torchvision's by name, with random weights, and a user's own module."""

from __future__ import annotations

import torch
from torch import nn

from neuralmech.errors import UserError
from neuralmech.models.options import TargetOptions, VisionOptions
from neuralmech.targets import call

NEURONS = 1024  # of a compact head
PIXELS = 32  # of an image's side that are one pixel behind the five poolings of a VGG


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
    model = getattr(models, options.arch)(num_classes=classes, **extra)
    if options.head == "compact":
        _give_compact_head(model, (shape[1] // PIXELS) * (shape[2] // PIXELS), classes)
    if options.norm == "none":
        _begin_as_identities(model)
    return model


def _give_compact_head(vgg: nn.Module, pixels: int, classes: int) -> None:
    """That of the networks of Neural Mechanics: 512·pixels → 1024 → 1024 → classes, 512·2·2 for images of 64×64.

    Torchvision's pools any image to 7×7 pixels first, has 4,096 neurons in each layer, and drops half of them.
    """
    sizes = (512 * pixels, NEURONS, NEURONS)
    layers = [part for size in sizes[:-1] for part in (nn.Linear(size, NEURONS), nn.ReLU(inplace=True))]
    vgg.avgpool, vgg.classifier = nn.Identity(), nn.Sequential(*layers, nn.Linear(NEURONS, classes))
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.get_parameter("weight"), nonlinearity="relu")
        nn.init.zeros_(layer.get_parameter("bias"))


@torch.no_grad()
def _begin_as_identities(resnet: nn.Module) -> None:
    """Zero the last convolution of each residual block, and shrink the others so that all move the output alike.

    Without normalisation the residual stream would else double its variance in every block, and training diverge at
    usual learning rates. Of L blocks with m convolutions the others are times L^{−1/(2m−2)} (Fixup: Zhang, Dauphin and
    Ma 2019, without its scalar biases).
    """
    blocks = [block for block in resnet.modules() if type(block).__name__ in ("BasicBlock", "Bottleneck")]
    for block in blocks:
        *first, last = (part for part in block.children() if isinstance(part, nn.Conv2d))
        for convolution in first:
            convolution.weight.mul_(len(blocks) ** (-1 / (2 * len(first))))
        last.weight.zero_()


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
