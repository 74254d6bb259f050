"""How log-scales pass what takes elements together that scale alike: moments, lengths, sums, pools, norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.engine import given_arguments
from neuralmech.discovery.ignored import factor_is_ignored
from neuralmech.discovery.scale import ScaleAlgebra, rule
from neuralmech.discovery.trace import operation, place

REDUCES = "dim keepdim dtype"


@rule("var", "std", takes="self", given="dim unbiased correction keepdim")
@rule("var_mean", takes="self", given="dim unbiased correction keepdim", outputs=2)
def _moment(algebra: ScaleAlgebra, node: fx.Node, x: Any, dims: Any = None, *_: Any, **named: Any) -> Any:
    dims = named.get("dim", None if isinstance(dims, bool) else dims)  # var(x, False): all of them
    first = _alike(algebra, node, x, dims)
    val = node.meta["val"]
    if operation(node) == "var_mean":
        return algebra.combine([first], [2]).reshape(val[0].shape), first.reshape(val[1].shape)
    return algebra.combine([first], [2 if operation(node) == "var" else 1]).reshape(val.shape)


@rule("norm", "linalg_vector_norm", takes="self", given="p ord dim keepdim dtype")
def _length(
    algebra: ScaleAlgebra, node: fx.Node, x: Any, order: Any = 2, dims: Any = None, *_: Any, **named: Any
) -> Any:
    """Homogeneous of degree 1, whatever its order but 0, which counts."""
    order = named.get("ord", named.get("p", order))
    first = _alike(algebra, node, x, named.get("dim", dims)).reshape(node.meta["val"].shape)
    return algebra.constant(first.shape) if order == 0 else first


def _alike(algebra: ScaleAlgebra, node: fx.Node, x: Any, dims: Any) -> Tensor:
    """Demand that x scales alike along some dims, all if there are none named; returns them narrowed to 1."""
    ids = algebra.ids(x)
    return algebra.unify(ids, geometry.dims_of(dims, ids.dim()), node)


@rule("_weight_norm", "_weight_norm_interface", takes="v g", given="dim")
def _weight_norm(algebra: ScaleAlgebra, node: fx.Node, v: Any, g: Any, dim: int = 0) -> Any:
    """g·v/‖v‖: the scale of each slice of v along `dim`, of all of v for dim −1, is ignored; the result scales as g."""
    direction = algebra.ids(v)
    over = tuple(d for d in range(direction.dim()) if d != dim)  # −1 is not the last dim here
    algebra.unify(direction, over, node)
    out = algebra.ids(g).expand(direction.shape)
    return _with_statistics(algebra, node, out)


@rule("mean", "sum", "amax", "amin", takes="self", given=REDUCES)
def _mean(algebra: ScaleAlgebra, node: fx.Node, x: Any, dims: Any = None, *_: Any, **named: Any) -> Tensor:
    return _alike(algebra, node, x, named.get("dim", dims)).reshape(node.meta["val"].shape)


@rule("cumsum", takes="self", given="dim dtype")
def _cumulative(algebra: ScaleAlgebra, node: fx.Node, x: Any, dim: int, **_: Any) -> Tensor:
    return _alike(algebra, node, x, dim).expand(node.meta["val"].shape)


POOL = "kernel_size stride padding dilation ceil_mode count_include_pad divisor_override"


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", takes="self", given=POOL)
def _pool(
    algebra: ScaleAlgebra, node: fx.Node, x: Any, kernel: Any, stride: Any = None, *rest: Any, **_: Any
) -> Tensor:
    from_max, rank = "max" in str(node.target), geometry.pool_rank(node)
    padding = rest[0] if rest else 0
    dilation = rest[1] if from_max and len(rest) > 1 else 1
    windows = geometry.pool_windows(algebra.ids(x), node.meta["val"].shape, rank, kernel, stride, padding, dilation)
    return _one_per_window(algebra, windows, node)


@rule(
    *("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices"),
    takes="self",
    given="kernel_size stride padding dilation ceil_mode",
    outputs=2,
)
def _pool_and_places(algebra: ScaleAlgebra, node: fx.Node, x: Any, *how: Any) -> tuple:
    kernel, stride, padding, dilation = (*how, *(None, None, 0, 1)[len(how) :])[:4]
    shape = node.meta["val"][0].shape
    windows = geometry.pool_windows(algebra.ids(x), shape, geometry.pool_rank(node), kernel, stride, padding, dilation)
    return _one_per_window(algebra, windows, node), algebra.constant(shape)


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", takes="self", given="output_size")
def _adaptive_pool(algebra: ScaleAlgebra, node: fx.Node, x: Any, size: Any) -> Tensor:
    windows = geometry.adaptive_windows(algebra.ids(x), node.meta["val"].shape, geometry.pool_rank(node))
    return _one_per_window(algebra, windows, node)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", takes="self", given="output_size", outputs=2)
def _adaptive_max_pool(algebra: ScaleAlgebra, node: fx.Node, x: Any, size: Any) -> tuple:
    windows = geometry.adaptive_windows(algebra.ids(x), node.meta["val"][0].shape, geometry.pool_rank(node))
    ids = _one_per_window(algebra, windows, node)
    return ids, algebra.constant(ids.shape)


def _one_per_window(algebra: ScaleAlgebra, windows: Tensor, node: fx.Node) -> Tensor:
    first = (windows != geometry.PADDING).int().argmax(dim=-1, keepdim=True)
    chosen = windows.gather(-1, first)
    algebra.equate(torch.where(windows == geometry.PADDING, chosen, windows), chosen, node)
    return chosen.squeeze(-1)


@rule(*geometry.NORMS, takes=geometry.NORM_TAKES, given=geometry.NORM_GIVEN)
def _norm(algebra: ScaleAlgebra, node: fx.Node, x: Any, *args: Any) -> Any:
    ids = algebra.ids(x)
    norm = geometry.NORMS[operation(node)](ids.shape, *args)
    if norm is None:
        return _affine(algebra, node, x, *args[:2])  # running statistics
    _note_epsilon(algebra, node)
    out = algebra.constant(torch.Size(norm.affine))
    if norm.weight is not None:
        out = algebra.ids(norm.weight).reshape(norm.affine)
    if not norm.centred and factor_is_ignored(node, len(norm.dims)):
        return algebra.combine([ids, out], [1, 1])
    algebra.unify(ids.reshape(norm.view), norm.dims, node)
    if norm.bias is not None:
        algebra.equate(algebra.ids(norm.bias).reshape(norm.affine), out, node)
    return _with_statistics(algebra, node, out.expand(ids.shape))


def _note_epsilon(algebra: ScaleAlgebra, node: fx.Node) -> None:
    """Name an eps that is larger than that of any built-in norm."""
    for argument, value in given_arguments(node):
        if argument.name == "eps" and isinstance(value, float) and value > 1e-4:
            algebra.approximations[f"eps of {value:g} at {place(node)}: up to that much of the variance"] = None


@rule("_native_batch_norm_legit_no_training", takes=geometry.NORM_TAKES, given=geometry.STATISTICS)
def _affine(algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any, *_: Any) -> Any:
    """γ(x − μ)/σ + β with fixed μ and σ: γ and β scale together, x does not."""
    algebra.forbid(x, f"the statistics are fixed at {place(node)}")
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    along = [-1 if d == 1 else 1 for d in range(len(shape))]
    out = algebra.constant(torch.Size([1] * len(shape))) if weight is None else algebra.ids(weight).reshape(along)
    if bias is not None:
        algebra.equate(algebra.ids(bias).reshape(along), out, node)
    return _with_statistics(algebra, node, out.expand(shape))


def _with_statistics(algebra: ScaleAlgebra, node: fx.Node, out: Tensor) -> Any:
    val = node.meta["val"]
    if not isinstance(val, (tuple, list)):
        return out
    return (out, *(algebra.constant(v.shape) for v in val[1:]))
