"""Pieces that several architectures share: activations, norms, and what follows a layer of a stack."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from neuralmech.models.options import LayerOptions

EPS = 1e-5  # of every norm


class Squared(nn.Module):
    """x², homogeneous of degree 2."""

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Square elementwise."""
        return x.square()


class Absolute(nn.Module):
    """|x|, positively homogeneous of degree 1."""

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
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

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Normalise over dimension 1."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def layer_norm(kind: str, width: int) -> nn.Module:
    """Norm over the last dimension: ``layer`` (centred) or ``rms``."""
    return nn.LayerNorm(width, eps=EPS) if kind == "layer" else nn.RMSNorm(width, eps=EPS)


def after(options: LayerOptions, channels: int, *, images: bool) -> list[nn.Module]:
    """Modules that follow a linear layer or a convolution: the norm, if any, and the activation."""
    layers: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: (nn.BatchNorm2d if images else nn.BatchNorm1d)(channels, eps=EPS),
        "layer": lambda: _per_pixel(layer_norm("layer", channels), images=images),
        "rms": lambda: _per_pixel(layer_norm("rms", channels), images=images),
        "group": lambda: nn.GroupNorm(options.groups, channels, eps=EPS),
        "instance": lambda: nn.InstanceNorm2d(channels, eps=EPS, affine=True),
    }
    norm = [] if options.norm == "none" else [layers[options.norm]()]
    return [*norm, ACTIVATIONS[options.activation]()]


def _per_pixel(norm: nn.Module, *, images: bool) -> nn.Module:
    return OverChannels(norm) if images else norm
