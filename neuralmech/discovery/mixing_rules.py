"""Rules for mixing channels: what writes them, what moves them, what reads them.

An operation that is not here forbids mixing; that is no loss where it is nonlinear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.distinct import distinct_pairs
from neuralmech.discovery.engine import Parameter, barrier
from neuralmech.discovery.mixing import MixingAlgebra, Vectors, constant_along, dual, rule


def _output(algebra: MixingAlgebra, node: fx.Node) -> Vectors:
    return algebra.constant(node.meta["val"].shape)


def _map(
    algebra: MixingAlgebra,
    x: Vectors,
    weight: Any,
    bias: Any,
    *,
    channel: int = -1,
    groups: int = 1,
    transposed: bool = False,
    positions: torch.Size | None = None,
) -> Vectors | None:
    """A linear map of x's channels by a parameter: reads its columns, writes its rows (or the reverse)."""
    if not isinstance(weight, Parameter):
        return None
    shape, width = weight.shape, weight.shape[1] * groups
    rows, columns = algebra.axis(weight, ("rows", shape[0], groups), ("columns", width, groups))
    readers, writers = (rows, columns) if transposed else (columns, rows)
    which = np.repeat(np.arange(groups), readers.size // groups) if groups > 1 else None
    algebra.read(
        x.channels.movedim(channel, -1),
        lambda: x.history.movedim(channel, -1),
        readers,
        which,
    )
    moved = x.shape[:-1] if channel == -1 else torch.Size([x.shape[0], *x.shape[2:]])
    out = algebra.write(writers, positions if positions is not None else moved)
    if bias is not None:
        out = _add(algebra, out, algebra.value(bias))
    return out


@rule("linear", takes="input weight bias")
def _linear(algebra: MixingAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None) -> Any:
    if len(node.args[0].meta["val"].shape) < 2 or len(weight.shape) < 2:  # type: ignore[union-attr]
        return barrier(algebra, node, x, weight, bias)
    out = _map(algebra, algebra.value(x), weight, bias)
    return out if out is not None else barrier(algebra, node, x, weight, bias)


@rule("addmm", takes="self mat1 mat2")
def _addmm(algebra: MixingAlgebra, node: fx.Node, bias: Any, x: Any, y: Any, **options: Any) -> Any:
    out = None if options else _map(algebra, algebra.value(x), y, bias, transposed=True)
    return out if out is not None else barrier(algebra, node, bias, x, y)


@rule("conv1d", "conv2d", "conv3d", takes="input weight bias", given="stride padding dilation groups")
def _conv(
    algebra: MixingAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None, *options: Any, **more: Any
) -> Any:
    return _convolution(algebra, node, x, weight, bias, geometry.convolution_options(options, more))


@rule(
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", takes="input weight bias",
    given="stride padding dilation groups output_padding",
)  # fmt: skip
def _conv_transpose(
    algebra: MixingAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None, *options: Any, **more: Any
) -> Any:
    chosen = geometry.convolution_options(options, more, transposed=True)
    return _convolution(algebra, node, x, weight, bias, chosen, transposed=True)


def _convolution(
    algebra: MixingAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any, chosen: Any, *, transposed: bool = False
) -> Any:
    shape = node.meta["val"].shape
    positions = torch.Size([shape[0], *shape[2:]])
    groups = chosen.get("groups", 1)
    out = _map(
        algebra, algebra.value(x), weight, None, channel=1, groups=groups, transposed=transposed, positions=positions
    )
    if out is None:
        return barrier(algebra, node, x, weight, bias)
    if bias is not None:
        out = _add(algebra, out, algebra.value(bias))
    channels, made = out.channels.movedim(-1, 1), out
    return Vectors(channels, lambda: made.history.movedim(-1, 1))


@rule("embedding", takes="weight", given="indices padding_idx scale_grad_by_freq sparse")
def _embedding(algebra: MixingAlgebra, node: fx.Node, weight: Any, indices: Any, *options: Any) -> Any:
    """Writes its columns; rows are tokens, which are told apart. A charge adds up all tokens' gradients."""
    if not isinstance(weight, Parameter):
        return barrier(algebra, node, weight)
    rows, columns = algebra.axis(weight, ("rows", weight.shape[0], 1), ("columns", weight.shape[1], 1))
    algebra.zero(rows)
    if geometry.whose_gradient(*options) != geometry.WHOLE:
        algebra.forbid(weight, "")
    return algebra.write(columns, node.meta["val"].shape[:-1])


@rule("mm", "bmm", takes="self mat2")
@rule("matmul", takes="self other")
def _matmul(algebra: MixingAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    if isinstance(y, Parameter) and len(y.shape) == 2:
        return _map(algebra, algebra.value(x), y, None, transposed=True)
    left, right = algebra.fixed(x), algebra.fixed(y)
    if len(left.shape) < 2 or len(right.shape) < 2:
        return barrier(algebra, node, left, right)
    return _product(algebra, node, left, right)


def _product(algebra: MixingAlgebra, node: fx.Node, left: Vectors, right: Vectors) -> Vectors:
    """x y over the last dims: either both are contracted along their channels, or one is summed over positions."""
    if algebra.is_constant(left):
        return _weighted_sum(algebra, node, left, right)
    if algebra.is_constant(right):
        flipped = _weighted_sum(algebra, node, _transpose(right), _transpose(left))
        return _transpose(flipped)
    _contract(algebra, left, _transpose(right))
    return _output(algebra, node)


def _transpose(x: Vectors) -> Vectors:
    return Vectors(x.channels.transpose(-1, -2), lambda: x.history.transpose(-1, -2))


def _weighted_sum(algebra: MixingAlgebra, node: fx.Node, weights: Vectors, x: Vectors) -> Vectors:
    """out[…, t, c] = Σ_s weights[…, t, s] x[…, s, c]: the channel c must be the same at every s."""
    if algebra.is_constant(x):
        return _output(algebra, node)
    lead = torch.broadcast_shapes(weights.shape[:-2], x.shape[:-2])
    t, s, c = weights.shape[-2], x.shape[-2], x.shape[-1]
    if not constant_along(x.channels, (x.channels.dim() - 2,)):
        algebra.forbid(x, "")
        return _output(algebra, node)
    channels = x.channels[..., :1, :].expand(*lead, t, c)

    def history() -> Tensor:
        summands = algebra.labels(x.history.transpose(-1, -2).reshape(-1, s))
        summed = torch.from_numpy(summands).reshape(*x.shape[:-2], 1, c).expand(*lead, t, c)
        rows = algebra.labels(weights.history.reshape(-1, s))
        weighting = torch.from_numpy(rows).reshape(*weights.shape[:-1], 1).expand(*lead, t, c)
        return algebra.combined(weighting, summed)

    return Vectors(channels, history)


def _contract(algebra: MixingAlgebra, left: Vectors, right: Vectors) -> None:
    """Σ_c left[…, t, c] right[…, s, c]: right's channels are the duals of left's."""
    lead = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    sides = []
    for x in (left, right):
        n, c = x.shape[-2], x.shape[-1]
        sides.append(
            (
                x.channels.expand(*lead, n, c).reshape(-1, n, c),
                x.history.expand(*lead, n, c).reshape(-1, n, c),
            )
        )
    (a, ha), (b, hb) = sides
    algebra.unify(a.numpy(), np.broadcast_to(dual(b[:, :1].numpy()), a.shape))
    algebra.unify(b.numpy(), np.broadcast_to(dual(a[:, :1].numpy()), b.shape))
    for ids, history in ((a, ha), (b, hb)):
        batches, n, c = ids.shape
        which = torch.arange(batches).reshape(-1, 1, 1).expand(batches, c, 1)
        tokens = algebra.labels(torch.cat([which, history.transpose(1, 2)], dim=2).reshape(batches * c, n + 1))
        each = np.repeat(tokens.reshape(batches, 1, c), n, axis=1)
        raw = distinct_pairs(ids.numpy().ravel(), each.ravel())
        algebra.tell(raw[0], raw[1])


@rule("scaled_dot_product_attention", takes="query key value", given="attn_mask dropout_p is_causal scale enable_gqa")
def _attention(algebra: MixingAlgebra, node: fx.Node, q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> Vectors:
    query, key, value = (algebra.fixed(t) for t in (q, k, v))
    if len(query.shape) > 3 and query.shape[-3] != key.shape[-3]:
        key, value = (_repeat(t, query.shape[-3] // t.shape[-3]) for t in (key, value))
    if algebra.is_constant(query) or algebra.is_constant(key):
        algebra.forbid(query, "")
        algebra.forbid(key, "")
    else:
        _contract(algebra, query, key)
    weights = algebra.constant(torch.Size([*query.shape[:-1], key.shape[-2]]))
    return _weighted_sum(algebra, node, weights, value)


def _repeat(x: Vectors, times: int) -> Vectors:
    return Vectors(x.channels.repeat_interleave(times, dim=-3), lambda: x.history.repeat_interleave(times, dim=-3))


@rule("own_rows", takes="stack", given="by ends")
def _own_rows(algebra: MixingAlgebra, node: fx.Node, x: Any, by: Any, ends: bool) -> Any:
    """One of the experts, the same for all channels of a row: they are the same channels in each expert."""
    vectors, shape = algebra.value(x), node.meta["val"].shape
    algebra.unify(vectors.channels.numpy(), vectors.channels[:1].numpy())

    def history() -> Tensor:
        of_expert = vectors.history.flatten(1).T
        row = torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
        label = torch.from_numpy(algebra.labels(of_expert)).reshape(shape)
        return algebra.combined(label, row)

    return Vectors(vectors.channels[0], history)


MOVEMENT = tuple(name for name in geometry.MOVEMENT if name not in ("pad", "constant_pad_nd"))


@rule(*MOVEMENT, *geometry.ASSIGNMENTS, takes=geometry.MOVED, given=geometry.MOVES)
def _move(algebra: MixingAlgebra, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    operands = tuple(
        [algebra.value(a) for a in arg] if _holds_tensors(arg) else algebra.value(arg) if _is_tensor(arg) else arg
        for arg in args
    )
    moved = geometry.move(node, _take(operands, "channels"), kwargs)
    if isinstance(moved, tuple):
        return tuple(
            Vectors(c, lambda i=i: geometry.move(node, _take(operands, "history"), kwargs)[i])
            for i, c in enumerate(moved)
        )
    return Vectors(moved, lambda: geometry.move(node, _take(operands, "history"), kwargs))


@rule("zero", takes="self")
def _zero(algebra: MixingAlgebra, node: fx.Node, x: Any) -> Vectors:
    """``x.zero_()`` reads nothing of x."""
    return _output(algebra, node)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Vectors, Parameter))


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(_is_tensor(v) for v in value)


def _take(operands: tuple, which: str) -> tuple:
    return tuple(
        [getattr(v, which) for v in o] if isinstance(o, list) and o and isinstance(o[0], Vectors)
        else getattr(o, which) if isinstance(o, Vectors) else o
        for o in operands
    )  # fmt: skip


@rule("add", "sub", "rsub", takes="self other", given="alpha")
def _sum(algebra: MixingAlgebra, node: fx.Node, x: Any, y: Any, **_: Any) -> Any:
    if not _is_tensor(x) or not _is_tensor(y):  # a number added to a channel
        return barrier(algebra, node, x, y)
    return _add(algebra, algebra.value(x), algebra.value(y))


def _add(algebra: MixingAlgebra, x: Vectors, y: Vectors) -> Vectors:
    """Summands have the same channels; which stands on which side, and with what, is part of the history."""
    shape = torch.broadcast_shapes(x.shape, y.shape)
    a, b = (t.broadcast_to(shape) for t in (x.channels, y.channels))
    left, right = geometry.narrow(a)[0], geometry.narrow(b)[0]
    algebra.unify(*np.broadcast_arrays(left.numpy(), right.numpy()))
    if not algebra.system.find(left.numpy()).any():
        return algebra.constant(shape)
    history = algebra.combined(x.history.broadcast_to(shape), y.history.broadcast_to(shape))
    for side, ids in enumerate((a, b)):
        _tell_places(algebra, ids, history, side)
    return Vectors(a, lambda: history)


def _tell_places(algebra: MixingAlgebra, ids: Tensor, history: Tensor, side: int) -> None:
    """Token of a raw id on one side of a sum: the set of histories it stands at."""
    kept = (geometry.narrow(ids)[0], geometry.narrow(history)[0])
    if all(1 in sizes for sizes in zip(*(t.shape for t in kept), strict=True)):  # each id at every history
        raw = np.unique(kept[0].numpy())
        algebra.tell(raw, np.full(raw.size, algebra.labels(torch.zeros(2, 1, dtype=torch.int64))[0]))
        return
    raw, at = distinct_pairs(*(t.reshape(-1).numpy() for t in torch.broadcast_tensors(*kept)))
    starts = np.flatnonzero(np.diff(raw, prepend=-1))
    seen: dict[bytes, int] = {}
    places, width = at.tobytes(), at.itemsize  # np.split takes longer than all the rest
    ends = np.append(starts, at.size)[1:]
    tokens = [
        seen.setdefault(places[width * start : width * end], len(seen))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    first = algebra.labels(torch.zeros(len(seen) + 1, 1, dtype=torch.int64))[0]
    algebra.tell(raw[starts], np.array(tokens) + first)


@rule("neg", takes="self")
def _negative(algebra: MixingAlgebra, node: fx.Node, x: Any) -> Vectors:
    vectors = algebra.value(x)
    return Vectors(vectors.channels, lambda: algebra.combined(vectors.history))


@rule("mul", "div", takes="self other")
def _scaled(algebra: MixingAlgebra, node: fx.Node, x: Any, y: Any, **_: Any) -> Any:
    """A factor that no mixing touches; where it differs between channels, so do their histories."""
    name = node.target.overloadpacket.__name__  # type: ignore[union-attr]
    left, right = algebra.fixed(x) if _other(x, y) else algebra.value(x), algebra.fixed(y)
    if name == "mul" and algebra.is_constant(left):
        left, right = right, left
    if not algebra.is_constant(right):
        return barrier(algebra, node, left, right)
    shape = torch.broadcast_shapes(left.shape, right.shape)
    return Vectors(
        left.channels.broadcast_to(shape),
        lambda: algebra.combined(left.history.broadcast_to(shape), right.history.broadcast_to(shape)),
    )


def _other(x: Any, y: Any) -> bool:
    """Whether x, a parameter, multiplies vectors."""
    return isinstance(x, Parameter) and isinstance(y, Vectors)


@rule("mean", "sum", takes="self", given="dim keepdim dtype")
def _total(algebra: MixingAlgebra, node: fx.Node, x: Any, dims: Any = None, *_: Any, **__: Any) -> Any:
    vectors = algebra.value(x)
    rank = len(vectors.shape)
    over = tuple(sorted(d % rank for d in dims)) if dims else tuple(range(rank))
    shape = node.meta["val"].shape
    if not constant_along(vectors.channels, over):
        return barrier(algebra, node, vectors)
    kept = [d for d in range(rank) if d not in over]

    def history() -> Tensor:
        rows = vectors.history.permute(*kept, *over).reshape(shape.numel(), -1)
        return torch.from_numpy(algebra.labels(rows)).reshape(shape)

    first = vectors.channels
    for d in over:
        first = first.narrow(d, 0, 1)
    return Vectors(first.permute(*kept, *over).reshape(shape), history)


@rule(
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    takes="self", given="kernel_size stride padding ceil_mode count_include_pad divisor_override output_size",
)  # fmt: skip
def _average(algebra: MixingAlgebra, node: fx.Node, x: Any, *_: Any, **__: Any) -> Any:
    """Mixes the positions of each channel, of all channels alike."""
    vectors, shape = algebra.value(x), node.meta["val"].shape
    over = tuple(range(2, len(vectors.shape)))
    if len(over) != geometry.pool_rank(node) or not constant_along(vectors.channels, over):
        return barrier(algebra, node, vectors)
    place = torch.arange(shape[2:].numel()).reshape(1, 1, *shape[2:])

    def history() -> Tensor:
        maps = torch.from_numpy(algebra.labels(vectors.history.reshape(shape[0] * shape[1], -1)))
        return algebra.combined(maps.reshape(*shape[:2], *(1,) * len(over)).expand(shape), place.expand(shape))

    return Vectors(vectors.channels[(..., *(slice(0, 1),) * len(over))].expand(shape), history)
