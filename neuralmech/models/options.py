"""Options of every architecture, which are checked before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from neuralmech.checks import check_at_least, check_choice
from neuralmech.errors import UserError
from neuralmech.targets import locate
from neuralmech.words import Differing

# What `neuralmech.models.parts` has a module for; the last three are names of one.
ACTIVATIONS = ("relu", "leaky_relu", "abs", "squared", "gelu", "tanh", "none", "identity", "linear")
ARCHITECTURES = (
    *(f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn")),
    "resnet18", "resnet34", "resnet50", "vit_b_16",
)  # fmt: skip


@dataclass(repr=False)
class LayerOptions(Differing):
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


@dataclass(repr=False)
class MLPOptions(LayerOptions):
    """`depth` hidden layers of `width` neurons; without an activation, a deep linear network."""

    name: str = "mlp"


@dataclass(repr=False)
class ConvNetOptions(LayerOptions):
    """`depth` convolutions; the channels double, from `width`, with every one of them."""

    name: str = "convnet"
    width: int = 8
    depth: int = 3

    norms: ClassVar[tuple[str, ...]] = (*LayerOptions.norms, "instance")
    least_depth: ClassVar[int] = 1


@dataclass(repr=False)
class TransformerOptions(Differing):
    """`depth` blocks on a residual stream of `width` channels.

    `kv_heads` (null: as many as heads) shares keys and values among heads; `hidden` (null: 4 × width) is the width of
    the feed-forward layers; `context` (null: that of the data) the longest sequence; `tie` reads the embedding as the
    unembedding too; `bias` is whether linear layers have one.
    """

    name: str = "transformer"
    width: int = 64
    depth: int = 2
    heads: int = 4
    kv_heads: int | None = None
    hidden: int | None = None
    activation: str = "gelu"
    norm: str = "layer"
    positions: str = "learned"
    context: int | None = None
    tie: bool = False
    bias: bool = True
    dropout: float = 0.0

    def check(self) -> None:
        """Raise a `UserError` for values that make no network."""
        for key, least in {"width": 1, "depth": 0, "heads": 1, "kv_heads": 1, "hidden": 1, "context": 1}.items():
            value = getattr(self, key)
            if value is not None:
                check_at_least(f"model.{key}", value, least)
        check_choice("model.activation", self.activation, (*ACTIVATIONS, "swiglu"))
        check_choice("model.norm", self.norm, ("layer", "rms"))
        check_choice("model.positions", self.positions, ("learned", "rotary"))
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout={self.dropout} must lie in [0, 1); use 0 for none")
        if self.width % self.heads:
            raise UserError(f"model.heads={self.heads} does not divide model.width={self.width}; change one of them")
        if self.kv_heads and self.heads % self.kv_heads:
            raise UserError(
                f"model.kv_heads={self.kv_heads} does not divide model.heads={self.heads}; change one of them"
            )
        if self.positions == "rotary" and (self.width // self.heads) % 2:
            raise UserError(
                f"model.positions=rotary needs heads of even size, not {self.width // self.heads}; "
                "change model.width or model.heads"
            )


@dataclass(repr=False)
class VisionOptions(Differing):
    """`arch` out of torchvision; `norm` none takes the BatchNorm out of a ResNet, `head` is that of a VGG."""

    name: str = "torchvision"
    arch: str = "resnet18"
    norm: str = "batch"
    head: str = "torchvision"

    def check(self) -> None:
        """Raise a `UserError` for unknown architectures."""
        check_choice("model.arch", self.arch, ARCHITECTURES)
        check_choice("model.norm", self.norm, ("batch", "none"))
        check_choice("model.head", self.head, ("torchvision", "compact"))
        if self.head == "compact" and not self.arch.startswith("vgg"):
            raise UserError(f"model.head=compact is for VGGs; with model.arch={self.arch} leave it at torchvision")
        if self.norm == "none" and not self.arch.startswith("resnet"):
            raise UserError(f"model.norm=none is for ResNets; with model.arch={self.arch} leave it at batch")


@dataclass(repr=False)
class TargetOptions(Differing):
    """``_target_``: dotted path of a class or function; everything else in the group is its arguments."""

    name: str = "_target_"
    target: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise a `UserError` if there is nothing of that name."""
        locate("model", self.target)
