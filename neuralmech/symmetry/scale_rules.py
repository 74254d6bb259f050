"""How log-scales pass every operation; one that is not here is a barrier."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.symmetry import geometry
from neuralmech.symmetry.engine import Parameter, barrier
from neuralmech.symmetry.scale import Factors, ScaleAlgebra, rule
from neuralmech.symmetry.system import Ids
from neuralmech.symmetry.trace import operation, place


def _distinct_rows(x: Tensor, channel: int) -> tuple[Ids, Tensor, torch.Size]:
    """Distinct channel rows of x: (rows × channels), the row of each position, the positions' shape."""
    moved = x.movedim(channel, -1)
    positions = geometry.narrow(moved)[0]
    full = positions.expand(*positions.shape[:-1], moved.shape[-1])
    rows, inverse = np.unique(full.reshape(-1, full.shape[-1]).numpy(), axis=0, return_inverse=True)
    return rows, torch.from_numpy(inverse.reshape(full.shape[:-1])), moved.shape[:-1]


def _apply_linear(
    algebra: ScaleAlgebra, node: fx.Node, x: Tensor, weight: Any, bias: Any, channel: int = -1, groups: int = 1
) -> Tensor:
    """Exponents after a linear map of x's channels by a weight (out, in/groups, …), itself a parameter or computed."""
    if not isinstance(weight, Parameter):
        return _contract_with(algebra, node, x, weight, bias, channel, groups)
    rows, inverse, positions = _distinct_rows(x, channel)
    outputs = torch.from_numpy(algebra.linear_map(rows, weight, groups))
    if bias is not None:
        algebra.equate(algebra.ids(bias), outputs, node)
    return outputs[inverse].expand(*positions, outputs.shape[1]).movedim(-1, channel)


def _contract_with(  # a weight that is computed: each out channel mixes products of entries and channels
    algebra: ScaleAlgebra, node: fx.Node, x: Tensor, weight: Tensor, bias: Any, channel: int, groups: int
) -> Tensor:
    rows, inverse, positions = _distinct_rows(x, channel)
    matrix = algebra.unify(weight.flatten(2), (2,), node)[..., 0] if weight.dim() > 2 else weight
    out, width = matrix.shape
    each = torch.from_numpy(rows).reshape(len(rows), groups, 1, width)
    products = algebra.combine([each, matrix.reshape(1, groups, out // groups, width)], [1, 1])
    outputs = algebra.unify(products, (3,), node).reshape(len(rows), out)
    if bias is not None:
        algebra.equate(algebra.ids(bias), outputs, node)
    return outputs[inverse].expand(*positions, out).movedim(-1, channel)


@rule("linear")
def _linear(algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None) -> Tensor:
    return _apply_linear(algebra, node, algebra.ids(x), weight, bias)


@rule("conv1d", "conv2d", "conv3d")
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


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(
    algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None, *options: Any, **more: Any
) -> Any:
    chosen = geometry.convolution_options(options, more, transposed=True)
    if not isinstance(weight, Parameter) or weight.name in algebra.factors:
        return barrier(algebra, node, x, weight, bias)
    ids = algebra.ids(x)
    ids = algebra.unify(ids, tuple(range(2, ids.dim())), node)
    return _apply_transposed(algebra, node, ids, weight, bias, 1, chosen.get("groups", 1)).expand(
        node.meta["val"].shape
    )


def _apply_transposed(
    algebra: ScaleAlgebra, node: fx.Node, x: Tensor, weight: Parameter, bias: Any, channel: int = -1, groups: int = 1
) -> Tensor:
    """Exponents after a linear map by a weight (in, out/groups, …): entry (i, o) scales as s_o − s_i."""
    rows, _, positions = _distinct_rows(x, channel)
    first = algebra.unify(torch.from_numpy(rows), (0,), node)[0]
    outputs = torch.from_numpy(algebra.system.new(weight.shape[1] * groups))
    factors = Factors(algebra.combine([first], [-1]).numpy(), algebra.combine([outputs], [-1]).numpy(), groups)
    algebra.introduce(weight, factors)
    if bias is not None:
        algebra.equate(algebra.ids(bias), outputs, node)
    return outputs.expand(*positions, outputs.numel()).movedim(-1, channel)


@rule("mm", "matmul", "bmm")
def _matmul(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    if isinstance(y, Parameter) and len(y.shape) == 2 and y.name not in algebra.factors:
        return _apply_transposed(algebra, node, algebra.ids(x), y, None)
    left, right = algebra.ids(x), algebra.ids(y)
    vector_left, vector_right = left.dim() == 1, right.dim() == 1
    left = left[None] if vector_left else left
    right = right[:, None] if vector_right else right
    products = algebra.combine([left[..., :, :, None], right[..., None, :, :]], [1, 1])
    out = algebra.unify(products, (products.dim() - 2,), node)[..., 0, :]
    return out.reshape(node.meta["val"].shape)


@rule("mv")
def _mv(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    products = algebra.combine([algebra.ids(x), algebra.ids(y)], [1, 1])
    return algebra.unify(products, (1,), node)[:, 0]


@rule("dot", "vdot")
def _dot(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    products = algebra.combine([algebra.ids(x), algebra.ids(y)], [1, 1])
    return algebra.unify(products, (0,), node)[0]


@rule("addmm")
def _addmm(algebra: ScaleAlgebra, node: fx.Node, bias: Any, x: Any, y: Any, **_: Any) -> Any:
    if isinstance(y, Parameter) and y.name not in algebra.factors:
        return _apply_transposed(algebra, node, algebra.ids(x), y, bias)
    return barrier(algebra, node, bias, x, y)


@rule("embedding")
def _embedding(algebra: ScaleAlgebra, node: fx.Node, weight: Any, indices: Any, *_: Any) -> Any:
    """Any token may stand anywhere, so all rows scale alike: one exponent per channel."""
    if not isinstance(weight, Parameter):
        return barrier(algebra, node, weight)
    if weight.name not in algebra.factors:
        columns = algebra.system.new(weight.shape[1])
        algebra.introduce(weight, Factors(np.zeros(weight.shape[0], dtype=np.int64), columns))
    factors = algebra.factors[weight.name]
    algebra.system.equate(factors.rows, factors.rows[:1])
    row = torch.from_numpy(factors.rows[:1])
    return algebra.combine([row, torch.from_numpy(factors.columns)], [1, -1]).expand(node.meta["val"].shape)


@rule("scaled_dot_product_attention")
def _attention(algebra: ScaleAlgebra, node: fx.Node, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> Tensor:
    """Logits q·k do not scale, channel by channel; every output position mixes all value positions."""
    query, key = (algebra.unify(algebra.ids(t), (t.dim() - 2,), node)[..., 0, :] for t in (q, k))
    value = algebra.unify(algebra.ids(v), (v.dim() - 2,), node)
    repeat = query.shape[-2] // key.shape[-2]  # grouped-query attention
    algebra.cancel(query, key.repeat_interleave(repeat, dim=-2))
    return value.repeat_interleave(repeat, dim=-3).expand(node.meta["val"].shape)


@rule(*geometry.MOVEMENT)
def _move(algebra: ScaleAlgebra, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    def ids(value: Any) -> Any:
        if isinstance(value, (list, tuple)) and any(isinstance(v, (Tensor, Parameter)) for v in value):
            return [algebra.ids(v) for v in value]
        return algebra.ids(value) if isinstance(value, Parameter) else value

    return geometry.move(node, tuple(ids(a) for a in args), kwargs)


@rule("relu", "leaky_relu", "neg", "abs", "dropout", "feature_dropout")
def _homogeneous(algebra: ScaleAlgebra, node: fx.Node, x: Any, *_: Any, **__: Any) -> Tensor:
    """Positively homogeneous of degree 1, elementwise."""
    return algebra.ids(x)


@rule("native_dropout")
def _native_dropout(algebra: ScaleAlgebra, node: fx.Node, x: Any, *_: Any) -> tuple:
    ids = algebra.ids(x)
    return ids, algebra.constant(ids.shape)


TINY = 1e-3  # an epsilon under a root or below a norm: the built-in norms' own is no larger


@rule("add", "sub", "rsub")
def _add(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any, *, alpha: float = 1) -> Tensor:
    x_ids, y_ids = algebra.ids(x), algebra.ids(y)
    if isinstance(y, (int, float)) and (y == 0 or _is_epsilon(node, y)):
        return x_ids
    algebra.equate(x_ids, y_ids, node)
    return x_ids.expand(node.meta["val"].shape)


def _is_epsilon(node: fx.Node, value: float) -> bool:
    """A small constant that only keeps a root or quotient finite breaks the symmetry by as little as a norm's eps."""
    adds = operation(node) == "add" and 0 < value <= TINY
    return adds and bool(node.users) and all(_needs_more_than_zero(user, node) for user in node.users)


def _needs_more_than_zero(user: fx.Node, node: fx.Node) -> bool:
    """Whether `user` takes a root, a negative power or the reciprocal of `node`, and nothing else."""
    name = operation(user)
    if name == "div":
        return user.args[1] is node and user.args[0] is not node
    if name == "pow":
        exponent = user.args[1]
        return isinstance(exponent, (int, float)) and (exponent < 0 or exponent != int(exponent))
    return name in ("rsqrt", "sqrt", "reciprocal")


@rule("clamp_min", "clamp")
def _clamp_min(algebra: ScaleAlgebra, node: fx.Node, x: Any, least: Any = None, most: Any = None) -> Any:
    if most is None and isinstance(least, (int, float)) and 0 <= least <= TINY:
        return algebra.ids(x)  # relu, or a floor below a norm
    return barrier(algebra, node, x, least, most)


@rule("where")
def _where(algebra: ScaleAlgebra, node: fx.Node, condition: Any, x: Any, y: Any) -> Tensor:
    x_ids, y_ids = algebra.ids(x), algebra.ids(y)
    algebra.equate(x_ids, y_ids, node)
    return x_ids.expand(node.meta["val"].shape)


@rule("masked_fill")
def _masked_fill(algebra: ScaleAlgebra, node: fx.Node, x: Any, mask: Any, value: Any) -> Tensor:
    ids = algebra.ids(x)
    if not (isinstance(value, (int, float)) and (value == 0 or math.isinf(value))):
        algebra.forbid(ids, f"fixed where it is filled with a constant at {place(node)}")
    return ids.expand(node.meta["val"].shape)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax")
def _softmax(algebra: ScaleAlgebra, node: fx.Node, x: Any, *_: Any, **__: Any) -> Tensor:
    algebra.forbid(x, f"logits of the softmax at {place(node)}")
    return algebra.constant(node.meta["val"].shape)


@rule("prelu", "_prelu_kernel")
def _prelu(algebra: ScaleAlgebra, node: fx.Node, x: Any, slope: Any) -> Tensor:
    algebra.forbid(slope, f"slope of the PReLU at {place(node)}")
    return algebra.ids(x)


@rule("index")
def _index(algebra: ScaleAlgebra, node: fx.Node, x: Any, indices: Any) -> Any:
    where = [None if n is None else algebra.concrete.get(n) for n in node.args[1]]  # type: ignore[union-attr]
    if any(w is None and n is not None for w, n in zip(where, node.args[1], strict=True)):  # type: ignore[arg-type]
        return barrier(algebra, node, x)
    return node.target(algebra.ids(x), where)  # type: ignore[operator]


@rule("var", "var_mean", "std", "norm", "linalg_vector_norm")
def _moment(algebra: ScaleAlgebra, node: fx.Node, x: Any, *args: Any, **options: Any) -> Any:
    name = operation(node)
    dims = args[1] if name in ("norm", "linalg_vector_norm") and len(args) > 1 else (args[0] if args else None)
    if name in ("norm", "linalg_vector_norm") and len(args) < 2:
        dims = options.get("dim")
    ids = algebra.ids(x)
    every = range(ids.dim()) if dims is None else ([dims] if isinstance(dims, int) else dims)
    first = algebra.unify(ids, tuple(d % ids.dim() for d in every), node)
    val = node.meta["val"]
    if name == "var_mean":
        return algebra.combine([first], [2]).reshape(val[0].shape), first.reshape(val[1].shape)
    return algebra.combine([first], [2 if name == "var" else 1]).reshape(val.shape)


@rule("_weight_norm", "_weight_norm_interface")
def _weight_norm(algebra: ScaleAlgebra, node: fx.Node, v: Any, g: Any, dim: int = 0) -> Any:
    """g·v/‖v‖: the scale of each slice of v is ignored, the result scales as g."""
    direction = algebra.ids(v)
    over = tuple(d for d in range(direction.dim()) if d != dim % direction.dim())
    algebra.unify(direction, over, node)
    out = algebra.ids(g).expand(direction.shape)
    return _with_statistics(algebra, node, out)


@rule("mul")
def _mul(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Tensor:
    return algebra.combine([algebra.ids(x), algebra.ids(y)], [1, 1])


@rule("div")
def _div(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any, **options: Any) -> Any:
    if options.get("rounding_mode"):
        return barrier(algebra, node, x, y)
    return algebra.combine([algebra.ids(x), algebra.ids(y)], [1, -1])


@rule("pow")
def _pow(algebra: ScaleAlgebra, node: fx.Node, x: Any, exponent: Any) -> Any:
    if not isinstance(exponent, (int, float)):
        return barrier(algebra, node, x, exponent)
    return algebra.combine([algebra.ids(x)], [Fraction(exponent).limit_denominator(1000)])


@rule("square", "sqrt", "rsqrt", "reciprocal")
def _power(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    degree = {"square": Fraction(2), "sqrt": Fraction(1, 2), "rsqrt": Fraction(-1, 2), "reciprocal": Fraction(-1)}
    return algebra.combine([algebra.ids(x)], [degree[operation(node)]])


@rule("mean", "sum", "amax", "amin")
def _mean(algebra: ScaleAlgebra, node: fx.Node, x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    ids = algebra.ids(x)
    every = range(ids.dim()) if not dims else ([dims] if isinstance(dims, int) else dims)
    over = tuple(d % ids.dim() for d in every)
    first = algebra.unify(ids, over, node)
    return first.reshape(node.meta["val"].shape)


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d")
def _pool(
    algebra: ScaleAlgebra, node: fx.Node, x: Any, kernel: Any, stride: Any = None, *rest: Any, **_: Any
) -> Tensor:
    from_max = "max" in str(node.target)
    padding = rest[0] if rest else 0
    dilation = rest[1] if from_max and len(rest) > 1 else 1
    windows = geometry.pool_windows(algebra.ids(x), node.meta["val"].shape, kernel, stride, padding, dilation)
    return _one_per_window(algebra, windows, node)


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_pool(algebra: ScaleAlgebra, node: fx.Node, x: Any, size: Any) -> Tensor:
    windows = geometry.adaptive_windows(algebra.ids(x), node.meta["val"].shape, len(size))
    return _one_per_window(algebra, windows, node)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(algebra: ScaleAlgebra, node: fx.Node, x: Any, size: Any) -> tuple:
    windows = geometry.adaptive_windows(algebra.ids(x), node.meta["val"][0].shape, len(size))
    ids = _one_per_window(algebra, windows, node)
    return ids, algebra.constant(ids.shape)


def _one_per_window(algebra: ScaleAlgebra, windows: Tensor, node: fx.Node) -> Tensor:
    first = (windows != geometry.PADDING).int().argmax(dim=-1, keepdim=True)
    chosen = windows.gather(-1, first)
    algebra.equate(torch.where(windows == geometry.PADDING, chosen, windows), chosen, node)
    return chosen.squeeze(-1)


@rule(*geometry.NORMS)
def _norm(algebra: ScaleAlgebra, node: fx.Node, x: Any, *args: Any) -> Any:
    ids = algebra.ids(x)
    norm = geometry.NORMS[node.target.overloadpacket.__name__](ids.shape, *args)  # type: ignore[union-attr]
    if norm is None:
        return barrier(algebra, node, x, *args[:2])
    algebra.unify(ids.reshape(norm.view), norm.dims, node)
    out = algebra.constant(torch.Size(norm.affine))
    if norm.weight is not None:
        out = algebra.ids(norm.weight).reshape(norm.affine)
    if norm.bias is not None:
        algebra.equate(algebra.ids(norm.bias).reshape(norm.affine), out, node)
    return _with_statistics(algebra, node, out.expand(ids.shape))


def _with_statistics(algebra: ScaleAlgebra, node: fx.Node, out: Tensor) -> Any:
    val = node.meta["val"]
    if not isinstance(val, (tuple, list)):
        return out
    return (out, *(algebra.constant(v.shape) for v in val[1:]))
