"""Tensors of variables: along which dims they are alike, what an index picks of them, what a window sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

Variables = Int64[Tensor, "*shape"]  # numbers of unknowns, one for each element, in a tensor's own shape


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


def first_along(tensor: Variables, dims: tuple[int, ...]) -> Variables:
    """Keep the first element along some dims, which stay with length 1."""
    for d in dims:
        tensor = tensor.narrow(d, 0, 1)
    return tensor


def along(values: Int64[Tensor, " channels"], channel: int, shape: torch.Size) -> Variables:
    """Broadcast a vector along one dimension of `shape`."""
    axis = [1] * len(shape)
    axis[channel] = shape[channel]
    return values.reshape(axis).expand(shape)


def picked(first: Variables, dims: tuple[int, ...], shape: torch.Size) -> Variables:
    """What a list of indices picks of a tensor that is alike along `dims`, where it has length 1: expand to `shape`.

    The picked dims come first, unless they stand together: then they come where the first of them was.
    """
    rest = [d for d in range(first.dim()) if d not in dims]
    before = dims[0] if dims == tuple(range(dims[0], dims[-1] + 1)) else 0
    kept = first.permute(*rest, *dims).flatten(len(rest)).squeeze(-1)
    width = len(shape) - len(rest)
    return kept.reshape(*kept.shape[:before], *[1] * width, *kept.shape[before:]).expand(shape)


def picked_places(dims: tuple[int, ...], rank: int, shape: torch.Size) -> Variables:
    """Number of each pick of a list of indices, the same along all else, in the output's shape."""
    before = dims[0] if dims == tuple(range(dims[0], dims[-1] + 1)) else 0
    chosen = range(before, before + len(shape) - rank + len(dims))
    sizes = [n if d in chosen else 1 for d, n in enumerate(shape)]
    return torch.arange(torch.Size(sizes).numel()).reshape(sizes).expand(shape)


def within(x: Variables, shape: torch.Size, but: int) -> Variables:
    """Keep of every dim `but` one what stands within `shape`."""
    return x[tuple(slice(None) if d == but else slice(0, n) for d, n in enumerate(shape))]


def narrow(*tensors: Variables) -> tuple[Variables, ...]:
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


PADDING = -1


def pool_windows(x: Variables, out: torch.Size, sizes: Sequence[Sequence[int]]) -> Int64[Tensor, "... window"]:
    """Elements under each window of a pool: shape ``(*out, window)``, `PADDING` where a window sticks out.

    `sizes` are the windows' length, stride, padding and dilation, each along the last dims.

    Examples
    --------
    >>> pool_windows(torch.tensor([[5, 6, 7]]), torch.Size([1, 2]), ([2], [2], [1], [1])).tolist()
    [[[-1, 5], [6, 7]]]
    """
    tables = []
    for d, (k, s, p, gap) in enumerate(zip(*sizes, strict=True), start=-len(sizes[0])):
        n = x.shape[d]
        at = torch.arange(out[d])[:, None] * s - p + torch.arange(k)[None, :] * gap
        tables.append(torch.where((at >= 0) & (at < n), at, n))
    return _gather(x, tables)


def adaptive_windows(x: Variables, out: torch.Size, rank: int) -> Int64[Tensor, "... window"]:
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


def spread(value: Any, rank: int) -> list[int]:
    """One number per dimension of a kernel, stride or padding."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * rank if len(values) == 1 else values
