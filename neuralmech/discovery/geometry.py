"""Shapes that the scale and the shift rules share: what a norm normalises over, what a pool looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

# Operations that only move, copy or drop elements: both algebras run the real operation on their variables.
MOVEMENT = (
    "_to_copy", "_unsafe_view", "alias", "broadcast_to", "cat", "chunk", "clone", "constant_pad_nd",
    "contiguous", "expand", "flatten", "flip", "lift_fresh_copy", "movedim", "narrow", "pad", "permute",
    "detach", "diagonal", "numpy_T", "pixel_shuffle", "pixel_unshuffle", "repeat", "repeat_interleave", "reshape",
    "roll", "select", "slice", "split", "split_with_sizes", "squeeze", "stack", "t", "to", "transpose", "type_as",
    "unbind", "unflatten", "unfold", "unsqueeze", "view",
)  # fmt: skip

# Their arguments, by their names in the schemas: what is moved, and how.
MOVED = "self tensors src other"  # of `other`, type_as reads the type alone
MOVES = (
    "size dim dims dim0 dim1 dim2 start end length step chunks split_size split_sizes shifts sizes index repeats "
    "dimension source destination start_dim end_dim shape upscale_factor downscale_factor pad mode value offset "
    "implicit memory_format dtype layout device pin_memory non_blocking copy output_size"
)

# Operations that take only the shape of their input.
FACTORIES = frozenset(
    ("new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like", "ones_like", "full_like",
     "rand_like", "randn_like")
)  # fmt: skip

# An assignment in place (x[1:2] = y) in a functional graph: the second operand replaces the first or a part of it.
ASSIGNMENTS = ("copy", "select_scatter", "slice_scatter")


def move(node: fx.Node, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run a movement operation on tensors of variables."""
    name = node.target.overloadpacket.__name__  # type: ignore[union-attr]
    count = 2 if name in ASSIGNMENTS else 1
    if any(isinstance(a, Tensor) for a in (*args[count:], *kwargs.values())) and name not in ("to", "type_as"):
        raise TypeError(f"{name} by numbers that are not known")
    if name in ("view", "_unsafe_view"):  # expanded variables have no compatible strides
        return args[0].reshape(args[1])
    if name in ("_to_copy", "contiguous", "clone", "alias", "lift_fresh_copy", "type_as", "to", "detach"):
        return args[0]
    if name == "copy":
        return args[1].expand(args[0].shape)
    if name in ("constant_pad_nd", "pad"):
        return _pad(*args, **kwargs)
    result = node.target(*args, **kwargs)  # type: ignore[operator]
    return tuple(result) if isinstance(result, list) else result


def dims_of(dims: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Dims that an operation names, counted from the first; all where it names none.

    Examples
    --------
    >>> dims_of(-1, 3), dims_of([0, -1], 3), dims_of(None, 3), dims_of([], 3)
    ((2,), (0, 2), (0, 1, 2), (0, 1, 2))
    """
    if dims is None or dims == []:
        return tuple(range(rank))
    return tuple(sorted({d % rank for d in ([dims] if isinstance(dims, int) else dims)}))


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


def picked(first: Tensor, dims: tuple[int, ...], shape: torch.Size) -> Tensor:
    """What a list of indices picks of a tensor that is alike along `dims`, where it has length 1: expand to `shape`.

    The picked dims come first, unless they stand together: then they come where the first of them was.
    """
    rest = [d for d in range(first.dim()) if d not in dims]
    before = dims[0] if dims == tuple(range(dims[0], dims[-1] + 1)) else 0
    kept = first.permute(*rest, *dims).flatten(len(rest)).squeeze(-1)
    width = len(shape) - len(rest)
    return kept.reshape(*kept.shape[:before], *[1] * width, *kept.shape[before:]).expand(shape)


def picked_places(dims: tuple[int, ...], rank: int, shape: torch.Size) -> Tensor:
    """Number of each pick of a list of indices, the same along all else, in the output's shape."""
    before = dims[0] if dims == tuple(range(dims[0], dims[-1] + 1)) else 0
    chosen = range(before, before + len(shape) - rank + len(dims))
    sizes = [n if d in chosen else 1 for d, n in enumerate(shape)]
    return torch.arange(torch.Size(sizes).numel()).reshape(sizes).expand(shape)


def within(x: Tensor, shape: torch.Size, but: int) -> Tensor:
    """Keep of every dim `but` one what stands within `shape`."""
    return x[tuple(slice(None) if d == but else slice(0, n) for d, n in enumerate(shape))]


def narrow(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Narrow to 1 every dimension along which all of the equally shaped tensors are constant."""
    told = [d for d in range(tensors[0].dim()) if tensors[0].shape[d] > 1]
    free = [d for d in told if all(t.stride(d) == 0 for t in tensors)]  # first, so that less is left to compare
    for d in free:
        tensors = tuple(t.narrow(d, 0, 1) for t in tensors)
    for d in told:
        if d not in free and all(_is_constant(t, d) for t in tensors):
            tensors = tuple(t.narrow(d, 0, 1) for t in tensors)
    return tensors


def _is_constant(x: Tensor, d: int) -> bool:
    """Whether a tensor is constant along a dimension; where it is not, the first two places mostly say so."""
    first, size = x.narrow(d, 0, 1), x.shape[d]
    if x.stride(d) == 0:
        return True
    return all(bool((x.narrow(d, 1, n) == first).all()) for n in dict.fromkeys((1, size - 1)))


def _pad(x: Tensor, widths: Sequence[int], mode: Any = "constant", value: Any = None) -> Tensor:
    """Pad variables as the tensor is padded; with a constant, the padding is left as it is (0)."""
    if not isinstance(mode, str) or mode == "constant":
        return torch.nn.functional.pad(x, widths, value=0)
    return torch.nn.functional.pad(x.double(), widths, mode=mode).long()  # exact below 2⁵³


def pads_zeros(mode: Any = "constant", value: Any = None) -> bool:
    """Whether a padding, given its arguments after the widths, puts zeros (``constant_pad_nd`` has no mode)."""
    return not value if mode == "constant" else not isinstance(mode, str) and not mode


@dataclass(frozen=True)
class Norm:
    """What a normalisation layer ignores.

    It ignores the scale of every slice of ``x.reshape(view)`` along `dims` and, if `centred`, a constant added
    to it; then weight and bias, if any, act along ``x.reshape(affine)``'s only dimension that is not 1.
    """

    view: tuple[int, ...]
    dims: tuple[int, ...]
    affine: tuple[int, ...]
    weight: Any
    bias: Any
    centred: bool = True


def batch_norm(x: torch.Size, weight: Any, bias: Any, *rest: Any) -> Norm | None:
    """BatchNorm: each channel over the batch and all positions; None with running statistics, which are no norm."""
    training = rest[0] if rest and isinstance(rest[0], bool) else rest[2]
    if not training:
        return None
    dims = tuple(d for d in range(len(x)) if d != 1)
    return Norm(tuple(x), dims, tuple(n if d == 1 else 1 for d, n in enumerate(x)), weight, bias)


def layer_norm(x: torch.Size, normalized: Sequence[int], weight: Any = None, bias: Any = None, *_: Any) -> Norm:
    """LayerNorm: the last ``len(normalized)`` dimensions together, each sample and position alone."""
    first = len(x) - len(normalized)
    return Norm(tuple(x), tuple(range(first, len(x))), (*([1] * first), *normalized), weight, bias)


def rms_norm(x: torch.Size, normalized: Sequence[int], weight: Any = None, *_: Any) -> Norm:
    """RMSNorm: as LayerNorm, but no mean is subtracted."""
    norm = layer_norm(x, normalized, weight)
    return Norm(norm.view, norm.dims, norm.affine, weight, None, centred=False)


def instance_norm(x: torch.Size, weight: Any, bias: Any, mean: Any, variance: Any, own: bool, *_: Any) -> Norm | None:
    """InstanceNorm: each channel over all positions, each sample alone; None with running statistics."""
    if not own:
        return None
    affine = tuple(n if d == 1 else 1 for d, n in enumerate(x))
    return Norm(tuple(x), tuple(range(2, len(x))), affine, weight, bias)


def group_norm(x: torch.Size, groups: int, weight: Any = None, bias: Any = None, *_: Any) -> Norm:
    """GroupNorm: the channels of a group over all positions, each sample alone."""
    view = (x[0], groups, x[1] // groups, *x[2:])
    affine = tuple(n if d == 1 else 1 for d, n in enumerate(x))
    return Norm(view, tuple(range(2, len(view))), affine, weight, bias)


NORMS: dict[str, Callable[..., Norm | None]] = {
    "_native_batch_norm_legit_functional": batch_norm,
    "_native_batch_norm_legit": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "rms_norm": rms_norm,
}

NORM_TAKES = "input weight bias"
STATISTICS = "running_mean running_var momentum eps"
NORM_GIVEN = f"normalized_shape num_groups cudnn_enable cudnn_enabled training use_input_stats {STATISTICS}"

PADDING = -1


def pool_rank(node: fx.Node) -> int:
    """Over how many of the last dims an operation such as ``max_pool2d`` pools; unbatched inputs have one dim less."""
    return int(next(c for c in node.target.overloadpacket.__name__ if c.isdigit()))  # type: ignore[union-attr]


def pool_windows(
    x: Tensor, out: torch.Size, rank: int, kernel: Any, stride: Any, padding: Any = 0, dilation: Any = 1
) -> Tensor:
    """Elements under each window of a pool: shape ``(*out, window)``, `PADDING` where a window sticks out.

    Examples
    --------
    >>> pool_windows(torch.tensor([[5, 6, 7]]), torch.Size([1, 2]), 1, 2, 2, 1).tolist()
    [[[-1, 5], [6, 7]]]
    """
    sizes = [spread(v, rank) for v in (kernel, stride or kernel, padding, dilation)]
    tables = []
    for d, (k, s, p, gap) in enumerate(zip(*sizes, strict=True)):
        n = x.shape[x.dim() - rank + d]
        at = torch.arange(out[len(out) - rank + d])[:, None] * s - p + torch.arange(k)[None, :] * gap
        tables.append(torch.where((at >= 0) & (at < n), at, n))
    return _gather(x, tables)


def adaptive_windows(x: Tensor, out: torch.Size, rank: int) -> Tensor:
    """Elements under each window of an adaptive pool, as in `pool_windows`."""
    tables = []
    for d in range(rank):
        n, m = x.shape[x.dim() - rank + d], out[len(out) - rank + d]
        first = [i * n // m for i in range(m)]
        last = [-((-(i + 1) * n) // m) for i in range(m)]
        width = max(b - a for a, b in zip(first, last, strict=True))
        at = torch.tensor(first)[:, None] + torch.arange(width)[None, :]
        tables.append(torch.where(at < torch.tensor(last)[:, None], at, n))
    return _gather(x, tables)


def _gather(x: Tensor, tables: list[Tensor]) -> Tensor:
    rank, lead = len(tables), x.dim() - len(tables)
    for d in reversed(range(rank)):
        dim = lead + d
        blank = torch.full_like(x.narrow(dim, 0, 1), PADDING)
        x = torch.cat([x, blank], dim).index_select(dim, tables[d].flatten())
        x = x.unflatten(dim, tuple(tables[d].shape)).movedim(dim + 1, -1)
    return x.flatten(start_dim=lead + rank)


def convolution_options(given: Sequence[Any], named: dict[str, Any], *, transposed: bool = False) -> dict[str, Any]:
    """Options of a convolution by name, those after the bias given in order or by name.

    Examples
    --------
    >>> convolution_options([2], {"groups": 4})
    {'stride': 2, 'groups': 4}
    """
    third = "output_padding" if transposed else "dilation"
    return dict(zip(("stride", "padding", third, "groups"), given, strict=False)) | named


def whose_gradient(padding: int = -1, by_frequency: bool = False, *_: Any) -> tuple[int, bool]:
    """Which gradient an embedding gives, from its arguments after the indices: (-1, False) is the loss's.

    It leaves out a padding token, and by frequency it divides a token's by how often that came.
    """
    return padding, by_frequency


WHOLE = (-1, False)


def spread(value: Any, rank: int) -> list[int]:
    """One number per dimension of a kernel, stride or padding."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * rank if len(values) == 1 else values
