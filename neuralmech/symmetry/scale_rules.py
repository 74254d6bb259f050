"""How log-scales pass every operation; one that is not here is a barrier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx

from neuralmech.symmetry import geometry
from neuralmech.symmetry.engine import Parameter, barrier
from neuralmech.symmetry.ignored import constant_is_ignored, factor_is_ignored
from neuralmech.symmetry.scale import ScaleAlgebra, rule
from neuralmech.symmetry.trace import operation, place


@rule(*geometry.MOVEMENT, *geometry.ASSIGNMENTS)
def _move(algebra: ScaleAlgebra, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    def ids(value: Any) -> Any:
        if isinstance(value, (list, tuple)) and any(isinstance(v, (Tensor, Parameter)) for v in value):
            return [algebra.ids(v) for v in value]
        return algebra.ids(value) if isinstance(value, Parameter) else value

    return geometry.move(node, tuple(ids(a) for a in args), kwargs)


@rule("constant_pad_nd", "pad")
def _pad(algebra: ScaleAlgebra, node: fx.Node, x: Any, widths: Sequence[int], *how: Any, **named: Any) -> Tensor:
    """Zeros around x: 0·α^s = 0 for any s, so they scale as their neighbours or, where these differ, freely.

    Tokens that fill up a window, or channels that fill up a shortcut, then bind nothing.
    """
    ids = algebra.ids(x)
    if not geometry.pads_zeros(*how, **named):
        return geometry.move(node, (ids, widths, *how), named)
    kept = geometry.narrow(ids)[0]
    alike = [ids.shape[d] > 1 == kept.shape[d] for d in range(ids.dim())][::-1]  # along what is alike, so are zeros
    apart = [0 if alike[i // 2] else width for i, width in enumerate(widths)]
    padded = torch.nn.functional.pad(kept, apart, value=geometry.PADDING)
    zeros = padded == geometry.PADDING
    padded[zeros] = torch.from_numpy(algebra.system.new(int(zeros.sum())))
    return padded.expand(node.meta["val"].shape)


@rule("zero")
def _zero(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    """Zeros in the place of x (``x.zero_()``) may scale as they like: 0·α^s = 0 for any s."""
    kept = geometry.narrow(algebra.ids(x))[0]
    return torch.from_numpy(algebra.system.new(kept.numel())).reshape(kept.shape).expand(node.meta["val"].shape)


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
    shape = node.meta["val"].shape
    for mine, other in ((x_ids, y_ids), (y_ids, x_ids)):
        if constant_is_ignored(node, _varies(other, shape)):
            return mine.expand(shape)
    algebra.equate(x_ids, y_ids, node)
    return x_ids.expand(shape)


def _varies(x: Tensor, shape: torch.Size) -> frozenset[int]:
    """Dims along which an operand that is broadcast to `shape` can differ."""
    return frozenset(len(shape) - x.dim() + d for d, n in enumerate(x.shape) if n > 1)


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
    """g·v/‖v‖: the scale of each slice of v along `dim`, of all of v for dim −1, is ignored; the result scales as g."""
    direction = algebra.ids(v)
    over = tuple(d for d in range(direction.dim()) if d != dim)  # −1 is not the last dim here
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
    out = algebra.constant(torch.Size(norm.affine))
    if norm.weight is not None:
        out = algebra.ids(norm.weight).reshape(norm.affine)
    if not norm.centred and factor_is_ignored(node, len(norm.dims)):
        return algebra.combine([ids, out], [1, 1])
    algebra.unify(ids.reshape(norm.view), norm.dims, node)
    if norm.bias is not None:
        algebra.equate(algebra.ids(norm.bias).reshape(norm.affine), out, node)
    return _with_statistics(algebra, node, out.expand(ids.shape))


def _with_statistics(algebra: ScaleAlgebra, node: fx.Node, out: Tensor) -> Any:
    val = node.meta["val"]
    if not isinstance(val, (tuple, list)):
        return out
    return (out, *(algebra.constant(v.shape) for v in val[1:]))
