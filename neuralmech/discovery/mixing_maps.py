"""How mixing passes what writes and reads channels: linear maps, convolutions, products, attention, embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.discovery.distinct import distinct_pairs
from neuralmech.discovery.engine import Parameter, barrier, constants
from neuralmech.discovery.mixing import MixingAlgebra, Vectors, constant_along, dual, rule
from neuralmech.discovery.mixing_rules import added
from neuralmech.discovery.operations import Convolution, Embedding
from neuralmech.discovery.schema import arguments, shape_of


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
        out = added(algebra, out, algebra.value(bias))
    return out


@rule("linear", takes="input weight bias")
def _linear(algebra: MixingAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any) -> Any:
    if len(shape_of(arguments(node)["input"])) < 2 or len(weight.shape) < 2:
        return barrier(algebra, node, x, weight, bias)
    vectors = algebra.value(x)
    if bias is None and isinstance(weight, Parameter) and _are_positions(algebra, vectors):
        return _transpose(_weighted_sum(algebra, node, algebra.fixed(weight), _transpose(vectors)))
    out = _map(algebra, vectors, weight, bias)
    return out if out is not None else barrier(algebra, node, x, weight, bias)


def _are_positions(algebra: MixingAlgebra, x: Vectors) -> bool:
    """Whether a map of x's last dim takes sums over positions, one channel at all of them, and is to let it pass.

    With a bias it adds the same number to every channel, which mixing would not leave alone.
    """
    if x.shape[-1] < 2 or not constant_along(x.channels, (x.channels.dim() - 1,)) or algebra.is_constant(x):
        return False
    algebra.met_positions = True
    return algebra.through_positions


@rule("addmm", takes="self mat1 mat2")
def _addmm(algebra: MixingAlgebra, node: fx.Node, bias: Any, x: Any, y: Any) -> Any:
    out = _map(algebra, algebra.value(x), y, bias, transposed=True)
    return out if out is not None else barrier(algebra, node, bias, x, y)


@rule(*Convolution.NAMES, takes=Convolution.TAKES, given=Convolution.GIVEN)
@rule(*Convolution.TRANSPOSED, takes=Convolution.TAKES, given=f"{Convolution.GIVEN} output_padding")
def _conv(algebra: MixingAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any) -> Any:
    shape, conv = shape_of(node), Convolution.of(node)
    positions, how = torch.Size([shape[0], *shape[2:]]), {"groups": conv.groups, "transposed": conv.is_transposed}
    out = _map(algebra, algebra.value(x), weight, bias, channel=1, positions=positions, **how)
    if out is None:
        return barrier(algebra, node, x, weight, bias)
    return Vectors(out.channels.movedim(-1, 1), lambda: out.history.movedim(-1, 1))


@rule("embedding", takes="weight", given="indices padding_idx scale_grad_by_freq sparse")
def _embedding(algebra: MixingAlgebra, node: fx.Node, weight: Any) -> Any:
    """Writes its columns; rows are tokens, which are told apart. A charge adds up all tokens' gradients."""
    if not isinstance(weight, Parameter):
        return barrier(algebra, node, weight)
    rows, columns = algebra.axis(weight, ("rows", weight.shape[0], 1), ("columns", weight.shape[1], 1))
    algebra.zero(rows)
    if not Embedding.of(node).has_whole_gradient:
        algebra.forbid(weight, "")
    return algebra.write(columns, shape_of(node)[:-1])


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
    return constants(node, algebra)


def _transpose(x: Vectors) -> Vectors:
    return Vectors(x.channels.transpose(-1, -2), lambda: x.history.transpose(-1, -2))


def _weighted_sum(algebra: MixingAlgebra, node: fx.Node, weights: Vectors, x: Vectors) -> Vectors:
    """out[…, t, c] = Σ_s weights[…, t, s] x[…, s, c]: the channel c must be the same at every s."""
    if algebra.is_constant(x):
        return constants(node, algebra)
    lead = torch.broadcast_shapes(weights.shape[:-2], x.shape[:-2])
    t, s, c = weights.shape[-2], x.shape[-2], x.shape[-1]
    if not constant_along(x.channels, (x.channels.dim() - 2,)):
        algebra.forbid(x, "")
        return constants(node, algebra)
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
def _attention(algebra: MixingAlgebra, node: fx.Node, q: Any, k: Any, v: Any) -> Vectors:
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
def _own_rows(algebra: MixingAlgebra, node: fx.Node, x: Any) -> Any:
    """One of the experts, the same for all channels of a row: they are the same channels in each expert."""
    vectors, shape = algebra.value(x), shape_of(node)
    algebra.unify(vectors.channels.numpy(), vectors.channels[:1].numpy())

    def history() -> Tensor:
        of_expert = vectors.history.flatten(1).T
        row = torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
        label = torch.from_numpy(algebra.labels(of_expert)).reshape(shape)
        return algebra.combined(label, row)

    return Vectors(vectors.channels[0], history)
