"""How log-scales pass what mixes channels by a weight: linear maps, convolutions, products, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.distinct import distinct_rows
from neuralmech.discovery.engine import Parameter, barrier
from neuralmech.discovery.ignored import constant_is_ignored, factor_is_ignored
from neuralmech.discovery.operations import Convolution, Embedding
from neuralmech.discovery.scale import Factors, ScaleAlgebra, rule
from neuralmech.discovery.schema import arguments, shape_of
from neuralmech.discovery.system import Ids
from neuralmech.discovery.trace import place


def _distinct_rows(x: Tensor, channel: int) -> tuple[Ids, Tensor, torch.Size]:
    """Distinct channel rows of x: (rows × channels), the row of each position, the positions' shape."""
    moved = x.movedim(channel, -1)
    positions = geometry.narrow(moved)[0]
    full = positions.expand(*positions.shape[:-1], moved.shape[-1])
    rows, inverse = distinct_rows(full.reshape(-1, full.shape[-1]).numpy())
    return rows, torch.from_numpy(inverse.reshape(full.shape[:-1])), moved.shape[:-1]


def _apply_linear(
    algebra: ScaleAlgebra, node: fx.Node, x: Tensor, weight: Any, bias: Any, channel: int = -1, groups: int = 1
) -> Tensor:
    """Exponents after a linear map of x's channels by a weight (out, in/groups, …), itself a parameter or computed."""
    if not isinstance(weight, Parameter):
        return _contract_with(algebra, node, x, weight, bias, channel, groups)
    rows, inverse, positions = _distinct_rows(x, channel)
    outputs = torch.from_numpy(algebra.linear_map(rows, weight, groups))
    if bias is not None and not constant_is_ignored(node, frozenset((channel % len(shape_of(node)),))):
        algebra.equate(algebra.ids(bias), outputs, node)
    return outputs[inverse].expand(*positions, outputs.shape[1]).movedim(-1, channel)


def _contract_with(  # a weight that is computed: each out channel mixes products of entries and channels
    algebra: ScaleAlgebra, node: fx.Node, x: Tensor, weight: Tensor, bias: Any, channel: int, groups: int
) -> Tensor:
    rows, inverse, positions = _distinct_rows(x, channel)
    matrix = algebra.unify(weight.flatten(2), (2,), node)[..., 0] if weight.dim() > 2 else weight
    out, width = matrix.shape
    each = torch.from_numpy(rows).reshape(len(rows), groups, 1, width)
    parts = matrix.reshape(1, groups, out // groups, width)
    if 1 in (geometry.narrow(each)[0].shape[3], geometry.narrow(parts)[0].shape[3]):  # then so is the other
        each, parts = algebra.unify(each, (3,), node), algebra.unify(parts, (3,), node)
    outputs = _contracted(algebra, node, each, parts, 3).reshape(len(rows), out)
    if bias is not None:
        algebra.equate(algebra.ids(bias), outputs, node)
    return outputs[inverse].expand(*positions, out).movedim(-1, channel)


@rule("linear", takes="input weight bias")
def _linear(algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any) -> Tensor:
    ids = algebra.ids(x)
    if len(weight.shape) == 1:  # one output, which has no dim of its own
        out = _contracted(algebra, node, ids, algebra.ids(weight), -1)
        if bias is not None:
            algebra.equate(algebra.ids(bias), out, node)
        return out
    if ids.dim() == 1:
        return _apply_linear(algebra, node, ids[None], weight, bias)[0]
    return _apply_linear(algebra, node, ids, weight, bias)


@rule(*Convolution.NAMES, takes=Convolution.TAKES, given=Convolution.GIVEN)
def _conv(algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any) -> Tensor:
    conv, ids, shape = Convolution.of(node), algebra.ids(x), shape_of(node)
    if conv.taps.numel() == 1:
        ids = ids[(slice(None), slice(None), *(slice(None, None, step) for step in conv.stride))]
    if conv.taps.numel() > 1 or ids.shape[2:] != shape[2:]:
        # Each output mixes positions (or is padding alone), which must then scale alike.
        ids = algebra.unify(ids, tuple(range(2, ids.dim())), node)
    return _apply_linear(algebra, node, ids, weight, bias, 1, conv.groups).expand(shape)


@rule(*Convolution.TRANSPOSED, takes=Convolution.TAKES, given=f"{Convolution.GIVEN} output_padding")
def _conv_transpose(algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any) -> Any:
    ids = algebra.ids(x)
    if not isinstance(weight, Parameter) or ids.dim() < len(weight.shape):
        return barrier(algebra, node, x, weight, bias)
    ids = algebra.unify(ids, tuple(range(2, ids.dim())), node)
    groups = Convolution.of(node).groups
    return _apply_transposed(algebra, node, ids, weight, bias, 1, groups).expand(shape_of(node))


def _apply_transposed(
    algebra: ScaleAlgebra, node: fx.Node, x: Tensor, weight: Parameter, bias: Any, channel: int = -1, groups: int = 1
) -> Tensor:
    """Exponents after a linear map by a weight (in, out/groups, …): entry (i, o) scales as s_o − s_i."""
    rows, inverse, positions = _distinct_rows(x, channel)
    outputs = torch.from_numpy(algebra.transposed_map(rows, weight, groups))
    if bias is not None:
        algebra.equate(algebra.ids(bias), outputs, node)
    return outputs[inverse].expand(*positions, outputs.shape[1]).movedim(-1, channel)


@rule("mm", "bmm", takes="self mat2")
@rule("matmul", takes="self other")
def _product(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Tensor:
    left = algebra.ids(x)
    left = left[None] if left.dim() == 1 else left
    if isinstance(y, Parameter) and len(y.shape) == 2:
        return _apply_transposed(algebra, node, left, y, None).reshape(shape_of(node))
    right = algebra.ids(y)
    right = right[:, None] if right.dim() == 1 else right
    return _contracted(algebra, node, left[..., :, :, None], right[..., None, :, :], -2).reshape(shape_of(node))


@rule("dot", takes="self tensor")
@rule("vdot", takes="self other")
def _dot(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Tensor:
    return _contracted(algebra, node, algebra.ids(x), algebra.ids(y), 0)


def _contracted(algebra: ScaleAlgebra, node: fx.Node, x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Exponents of Σ xy along a dim: all its products scale alike."""
    products = algebra.combine([x, y], [1, 1])
    return algebra.unify(products, (dim % products.dim(),), node).squeeze(dim)


@rule("addmm", takes="self mat1 mat2", given="beta alpha")
def _addmm(algebra: ScaleAlgebra, node: fx.Node, bias: Any, x: Any, y: Any) -> Any:
    given = arguments(node)
    if not (given["beta"] and given["alpha"]):
        return barrier(algebra, node, bias, x, y)
    out = _product(algebra, node, x, y)
    algebra.equate(algebra.ids(bias), out, node)
    return out


@rule("embedding", takes="weight", given="indices padding_idx scale_grad_by_freq sparse")
def _embedding(algebra: ScaleAlgebra, node: fx.Node, weight: Any) -> Any:
    """Any token may stand anywhere, so all rows scale alike: one exponent per channel.

    Each token has a scale of its own where norms take it out of every position. A charge adds up all tokens, so it
    needs the loss's gradient of each.
    """
    if not isinstance(weight, Parameter):
        return barrier(algebra, node, weight)
    alone = factor_is_ignored(node, 1)
    if weight.name not in algebra.factors:
        columns = algebra.system.new(weight.shape[1])
        tokens = algebra.system.new(weight.shape[0])
        algebra.introduce(weight, Factors(tokens, columns))
        algebra.system.zero(columns[:1] if alone else tokens)  # rows and columns are known up to a constant
    factors = algebra.factors[weight.name]
    if not alone:
        algebra.system.equate(factors.rows, factors.rows[:1])
    if not Embedding.of(node).has_whole_gradient:
        algebra.forbid(weight, f"its gradient leaves out a padding token or weighs by frequency at {place(node)}")
    row = torch.from_numpy(np.zeros(1, dtype=np.int64) if alone else factors.rows[:1])
    return algebra.combine([row, torch.from_numpy(factors.columns)], [1, -1]).expand(shape_of(node))


ATTENTION = "dropout_p is_causal scale enable_gqa"


@rule("scaled_dot_product_attention", takes="query key value attn_mask", given=ATTENTION)
def _attention(algebra: ScaleAlgebra, node: fx.Node, q: Any, k: Any, v: Any, mask: Any) -> Tensor:
    """Logits q·k + mask do not scale, channel by channel; every output position mixes all value positions."""
    if mask is not None:
        algebra.forbid(mask, f"added to the logits of the attention at {place(node)}")
    query, key = (algebra.unify(algebra.ids(t), (t.dim() - 2,), node)[..., 0, :] for t in (q, k))
    value = algebra.unify(algebra.ids(v), (v.dim() - 2,), node)
    repeat = query.shape[-2] // key.shape[-2]  # grouped-query attention
    algebra.cancel(query, key.repeat_interleave(repeat, dim=-2))
    return value.repeat_interleave(repeat, dim=-3).expand(shape_of(node))
