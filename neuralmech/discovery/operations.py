"""What a node of a traced graph does, in terms that every algebra shares: dims, windows, taps, what a norm ignores.

Many operations do the same kind of thing, each with arguments of its own. A node is read here, by its operation's
schema, into a description, which is what rules look at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, fx

from neuralmech.discovery.geometry import Variables, adaptive_windows, dims_of, pool_windows, spread
from neuralmech.discovery.schema import arguments, name_of, shape_of


@dataclass(frozen=True)
class Reduction:
    """Elements that are taken together along `dims` of a tensor of `shape`: a sum, a moment, the largest, their order.

    The dims stay with length 1 where `keep` is true; of what gives as many elements as it takes it says nothing.
    """

    shape: torch.Size
    dims: tuple[int, ...]
    keep: bool

    @staticmethod
    def of(node: fx.Node) -> Reduction:
        """Read a sum, moment, length, softmax, choice or order: of all dims where it names none."""
        given = arguments(node)
        shape = shape_of(given["self"])
        return Reduction(shape, dims_of(given.get("dim"), len(shape)), bool(given.get("keepdim")))

    @property
    def count(self) -> int:
        """How many elements are taken together."""
        return math.prod(self.shape[d] for d in self.dims)

    def dim_after(self, dim: int) -> int:
        """Where another dim than these stands afterwards."""
        return dim if self.keep else dim - sum(d < dim for d in self.dims)


@dataclass(frozen=True)
class Pool:
    """Windows over the last `rank` dims of a tensor, of each of which the mean or the largest element is taken.

    Attributes
    ----------
    shape
        Of what it gives.
    sizes
        Length, stride, padding and dilation of the windows along each dim; None of an adaptive pool.
    is_max
        Whether it takes the largest element.
    counts_padding
        Whether zeros where a window sticks out enter the mean.
    """

    MEANS: ClassVar = ("avg_pool1d", "avg_pool2d", "avg_pool3d")
    LARGEST: ClassVar = ("max_pool1d", "max_pool2d", "max_pool3d")
    WITH_PLACES: ClassVar = ("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")
    ADAPTIVE_MEANS: ClassVar = ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
    ADAPTIVE_LARGEST: ClassVar = ("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
    GIVEN: ClassVar = "kernel_size stride padding dilation ceil_mode"

    shape: torch.Size
    rank: int
    sizes: tuple[list[int], ...] | None
    is_max: bool
    counts_padding: bool

    @staticmethod
    def of(node: fx.Node) -> Pool:
        """Read a pool, fixed or adaptive, with its places or without."""
        name, given, val = name_of(node), arguments(node), node.meta["val"]
        rank = int(next(c for c in name if c.isdigit()))  # unbatched inputs have one dim less
        shape, is_max = (val if isinstance(val, Tensor) else val[0]).shape, "max" in name
        if "output_size" in given:
            return Pool(shape, rank, None, is_max, counts_padding=False)
        kernel = given["kernel_size"]
        options = (kernel, given["stride"] or kernel, given["padding"], given.get("dilation", 1))
        counts = not is_max and given["count_include_pad"]
        return Pool(shape, rank, tuple(spread(v, rank) for v in options), is_max, counts)

    def windows(self, x: Variables) -> Int64[Tensor, "... window"]:
        """Elements of x under each window: shape ``(*shape, window)``, `PADDING` where a window sticks out."""
        if self.sizes is None:
            return adaptive_windows(x, self.shape, self.rank)
        return pool_windows(x, self.shape, self.sizes)


@dataclass(frozen=True)
class Convolution:
    """A map of channels, dim 1, by a weight (out, in/groups, *taps); if it is transposed, (in, out/groups, *taps).

    Attributes
    ----------
    stride, padding, dilation
        Along each dim; `padding` is ``("same",)`` or ``("valid",)`` where it is told so.
    output_padding
        Of a transposed one.
    """

    NAMES: ClassVar = ("conv1d", "conv2d", "conv3d")
    TRANSPOSED: ClassVar = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
    TAKES: ClassVar = "input weight bias"
    GIVEN: ClassVar = "stride padding dilation groups"  # and, if it is transposed, output_padding

    taps: torch.Size
    is_transposed: bool
    stride: tuple[int, ...]
    padding: tuple[int | str, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int

    @staticmethod
    def of(node: fx.Node) -> Convolution:
        """Read a convolution or a transposed one."""
        given = arguments(node)
        taps = shape_of(given["weight"])[2:]
        padding = given["padding"]
        told = (padding,) if isinstance(padding, str) else tuple(spread(padding, len(taps)))
        stride, dilation, more = (
            tuple(spread(v, len(taps))) for v in (given["stride"], given["dilation"], given.get("output_padding", 0))
        )
        return Convolution(taps, name_of(node) in Convolution.TRANSPOSED, stride, told, dilation, more, given["groups"])

    @property
    def pads(self) -> bool:
        """Whether zeros stand around what it reads (transposed: are cut off or added)."""
        return any(p not in (0, "valid") for p in (*self.padding, *self.output_padding))

    @property
    def is_pointwise(self) -> bool:
        """Whether each position is mapped alone."""
        return self.taps.numel() == 1 and not self.pads and set(self.stride) <= {1}


@dataclass(frozen=True)
class Embedding:
    """Rows of a table, and the gradient that it gives: the loss's, unless `padding` or `by_frequency` changes it.

    It leaves out the token `padding` (−1: none), and by frequency it divides a token's by how often that came.
    """

    indices: fx.Node
    padding: int
    by_frequency: bool

    @staticmethod
    def of(node: fx.Node) -> Embedding:
        """Read an embedding."""
        given = arguments(node)
        return Embedding(given["indices"], given["padding_idx"], given["scale_grad_by_freq"])

    @property
    def has_whole_gradient(self) -> bool:
        """Whether the gradient is the loss's."""
        return self.padding == -1 and not self.by_frequency


@dataclass(frozen=True)
class Norm:
    """What a normalisation layer ignores.

    It ignores the scale of every slice of ``x.reshape(view)`` along `dims` and, if `centred`, a constant added
    to it; then weight and bias, if any, act along ``x.reshape(affine)``'s only dimension that is not 1.
    """

    NAMES: ClassVar = (
        "_native_batch_norm_legit_functional", "_native_batch_norm_legit", "layer_norm", "group_norm", "instance_norm",
        "rms_norm",
    )  # fmt: skip
    TAKES: ClassVar = "input weight bias"
    STATISTICS: ClassVar = "running_mean running_var momentum eps"
    GIVEN: ClassVar = f"normalized_shape num_groups cudnn_enable cudnn_enabled training use_input_stats {STATISTICS}"

    view: tuple[int, ...]
    dims: tuple[int, ...]
    affine: tuple[int, ...]
    centred: bool = True

    @staticmethod
    def of(node: fx.Node) -> Norm | None:
        """Read one of `NAMES`; None if it uses running statistics, with which it is no norm."""
        name, given = name_of(node), arguments(node)
        x = tuple(shape_of(given["input"]))
        if "normalized_shape" in given:  # layer_norm and rms_norm: the last dims together, all else alone
            first = len(x) - len(given["normalized_shape"])
            affine = (*([1] * first), *x[first:])
            return Norm(x, tuple(range(first, len(x))), affine, centred=name != "rms_norm")
        channels = tuple(n if d == 1 else 1 for d, n in enumerate(x))
        if name == "group_norm":  # the channels of a group over all positions, each sample alone
            view = (x[0], given["num_groups"], x[1] // given["num_groups"], *x[2:])
            return Norm(view, tuple(range(2, len(view))), channels)
        if name == "instance_norm":  # each channel over all positions, each sample alone
            return Norm(x, tuple(range(2, len(x))), channels) if given["use_input_stats"] else None
        return Norm(x, tuple(d for d in range(len(x)) if d != 1), channels) if given["training"] else None


def outside_triangle(node: fx.Node) -> Bool[Tensor, "rows columns"]:
    """Where ``tril`` or ``triu`` puts zeros: true, in the shape of the last two dims."""
    ones = torch.ones(shape_of(node)[-2:])
    return node.target(ones, arguments(node)["diagonal"]) == 0  # type: ignore[operator]


def indexed_dims(index: Sequence[fx.Node | None]) -> tuple[int, ...]:
    """Dims of a tensor that a list of indices picks along; a mask takes as many as it has."""
    dims, at = [], 0
    for n in index:
        wide = 1
        if n is not None:
            val = n.meta["val"]
            wide = val.dim() if val.dtype in (torch.bool, torch.uint8) else 1
            dims += range(at, at + wide)
        at += wide
    return tuple(dims)
