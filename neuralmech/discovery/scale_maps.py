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
from neuralmech.discovery.scale import Factors, ScaleAlgebra, rule
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
    if bias is not None and not constant_is_ignored(node, frozenset((channel % len(node.meta["val"].shape),))):
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
    products = algebra.combine([each, parts], [1, 1])
    outputs = algebra.unify(products, (3,), node).reshape(len(rows), out)
    if bias is not None:
        algebra.equate(algebra.ids(bias), outputs, node)
    return outputs[inverse].expand(*positions, out).movedim(-1, channel)


@rule("linear", takes="input weight bias")
def _linear(algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None) -> Tensor:
    ids = algebra.ids(x)
    if len(weight.shape) == 1:  # one output, which has no dim of its own
        products = algebra.combine([ids, algebra.ids(weight)], [1, 1])
        out = algebra.unify(products, (products.dim() - 1,), node)[..., 0]
        if bias is not None:
            algebra.equate(algebra.ids(bias), out, node)
        return out
    if ids.dim() == 1:
        return _apply_linear(algebra, node, ids[None], weight, bias)[0]
    return _apply_linear(algebra, node, ids, weight, bias)


CONVOLUTION = "stride padding dilation groups"


@rule("conv1d", "conv2d", "conv3d", takes="input weight bias", given=CONVOLUTION)
def _conv(
    algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None, *options: Any, **more: Any
) -> Tensor:
    chosen = geometry.convolution_options(options, more)
    ids, groups, shape = algebra.ids(x), chosen.get("groups", 1), node.meta["val"].shape
    if weight.shape[2:].numel() == 1:
        strides = geometry.spread(chosen.get("stride", 1), ids.dim() - 2)
        for d, step in enumerate(strides):
            ids = ids[(slice(None),) * (d + 2) + (slice(None, None, step),)]
    if weight.shape[2:].numel() > 1 or ids.shape[2:] != shape[2:]:
        # Each output mixes positions (or is padding alone), which must then scale alike.
        ids = algebra.unify(ids, tuple(range(2, ids.dim())), node)
    return _apply_linear(algebra, node, ids, weight, bias, 1, groups).expand(shape)


@rule(
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    takes="input weight bias",
    given=f"{CONVOLUTION} output_padding",
)
def _conv_transpose(
    algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None, *options: Any, **more: Any
) -> Any:
    chosen = geometry.convolution_options(options, more, transposed=True)
    ids = algebra.ids(x)
    if not isinstance(weight, Parameter) or ids.dim() < len(weight.shape):
        return barrier(algebra, node, x, weight, bias)
    ids = algebra.unify(ids, tuple(range(2, ids.dim())), node)
    return _apply_transposed(algebra, node, ids, weight, bias, 1, chosen.get("groups", 1)).expand(
        node.meta["val"].shape
    )


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
def _matmul(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    return _product(algebra, node, x, y)


def _product(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Tensor:
    left = algebra.ids(x)
    vector_left = left.dim() == 1
    left = left[None] if vector_left else left
    if isinstance(y, Parameter) and len(y.shape) == 2:
        return _apply_transposed(algebra, node, left, y, None).reshape(node.meta["val"].shape)
    right = algebra.ids(y)
    right = right[:, None] if right.dim() == 1 else right
    products = algebra.combine([left[..., :, :, None], right[..., None, :, :]], [1, 1])
    out = algebra.unify(products, (products.dim() - 2,), node)[..., 0, :]
    return out.reshape(node.meta["val"].shape)


@rule("mv", takes="self vec")
def _mv(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    products = algebra.combine([algebra.ids(x), algebra.ids(y)], [1, 1])
    return algebra.unify(products, (1,), node)[:, 0]


@rule("dot", takes="self tensor")
@rule("vdot", takes="self other")
def _dot(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    products = algebra.combine([algebra.ids(x), algebra.ids(y)], [1, 1])
    return algebra.unify(products, (0,), node)[0]


@rule("addmm", takes="self mat1 mat2", given="beta alpha")
def _addmm(algebra: ScaleAlgebra, node: fx.Node, bias: Any, x: Any, y: Any, **share: Any) -> Any:
    if not all(share.values()):  # β = 0 or α = 0
        return barrier(algebra, node, bias, x, y)
    out = _product(algebra, node, x, y)
    algebra.equate(algebra.ids(bias), out, node)
    return out


@rule("embedding", takes="weight", given="indices padding_idx scale_grad_by_freq sparse")
def _embedding(algebra: ScaleAlgebra, node: fx.Node, weight: Any, indices: Any, *options: Any) -> Any:
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
    if geometry.whose_gradient(*options) != geometry.WHOLE:
        algebra.forbid(weight, f"its gradient leaves out a padding token or weighs by frequency at {place(node)}")
    row = torch.from_numpy(np.zeros(1, dtype=np.int64) if alone else factors.rows[:1])
    return algebra.combine([row, torch.from_numpy(factors.columns)], [1, -1]).expand(node.meta["val"].shape)


ATTENTION = "dropout_p is_causal scale enable_gqa"


@rule("scaled_dot_product_attention", takes="query key value attn_mask", given=ATTENTION)
def _attention(
    algebra: ScaleAlgebra, node: fx.Node, q: Any, k: Any, v: Any, mask: Any = None, *_: Any, **named: Any
) -> Tensor:
    """Logits q·k + mask do not scale, channel by channel; every output position mixes all value positions."""
    mask = named.get("attn_mask", mask)
    if mask is not None:
        algebra.forbid(mask, f"added to the logits of the attention at {place(node)}")
    query, key = (algebra.unify(algebra.ids(t), (t.dim() - 2,), node)[..., 0, :] for t in (q, k))
    value = algebra.unify(algebra.ids(v), (v.dim() - 2,), node)
    repeat = query.shape[-2] // key.shape[-2]  # grouped-query attention
    algebra.cancel(query, key.repeat_interleave(repeat, dim=-2))
    return value.repeat_interleave(repeat, dim=-3).expand(node.meta["val"].shape)
