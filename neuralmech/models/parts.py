"""Pieces that several architectures share: activations, norms, and the options of a stack of layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from neuralmech.checks import check_at_least, check_choice
from neuralmech.errors import UserError

EPS = 1e-5  # of every norm


class Squared(nn.Module):
    """x², homogeneous of degree 2."""

    def forward(self, x: Tensor) -> Tensor:
        """Square elementwise."""
        return x.square()


class Absolute(nn.Module):
    """|x|, positively homogeneous of degree 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Take absolute values elementwise."""
        return x.abs()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "abs": Absolute,
    "squared": Squared,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    **dict.fromkeys(("none", "identity", "linear"), nn.Identity),
}


class OverChannels(nn.Module):
    """Apply a norm of the last dimension to the channels of images (batch, channels, height, width), per pixel."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over dimension 1."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def layer_norm(kind: str, width: int) -> nn.Module:
    """Norm over the last dimension: ``layer`` (centred) or ``rms``."""
    return nn.LayerNorm(width, eps=EPS) if kind == "layer" else nn.RMSNorm(width, eps=EPS)


@dataclass
class LayerOptions:
    """Options of a stack of `depth` layers, each followed by a norm and an activation.

    `groups` is the number of groups of channels that ``norm=group`` normalises.
    """

    width: int = 64
    depth: int = 2
    activation: str = "relu"
    norm: str = "none"
    groups: int = 2

    norms: ClassVar[tuple[str, ...]] = ("none", "batch", "layer", "group", "rms")
    least_depth: ClassVar[int] = 0

    def check(self) -> None:
        """Raise a `UserError` for values that make no network."""
        check_at_least("model.width", self.width, 1)
        check_at_least("model.depth", self.depth, self.least_depth)
        check_choice("model.activation", self.activation, ACTIVATIONS)
        check_choice("model.norm", self.norm, self.norms)
        check_at_least("model.groups", self.groups, 1)
        if self.norm == "group" and self.width % self.groups:
            raise UserError(f"model.groups={self.groups} does not divide model.width={self.width}; change one of them")

    def after(self, channels: int, *, images: bool) -> list[nn.Module]:
        """Modules that follow a linear layer or a convolution: the norm, if any, and the activation."""
        layers: dict[str, Callable[[], nn.Module]] = {
            "batch": lambda: (nn.BatchNorm2d if images else nn.BatchNorm1d)(channels, eps=EPS),
            "layer": lambda: _per_pixel(layer_norm("layer", channels), images=images),
            "rms": lambda: _per_pixel(layer_norm("rms", channels), images=images),
            "group": lambda: nn.GroupNorm(self.groups, channels, eps=EPS),
            "instance": lambda: nn.InstanceNorm2d(channels, eps=EPS, affine=True),
        }
        norm = [] if self.norm == "none" else [layers[self.norm]()]
        return [*norm, ACTIVATIONS[self.activation]()]


def _per_pixel(norm: nn.Module, *, images: bool) -> nn.Module:
    return OverChannels(norm) if images else norm
