"""How log-scales pass what takes elements together that scale alike: moments, lengths, sums, pools, norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.ignored import factor_is_ignored
from neuralmech.discovery.operations import Norm, Pool, Reduction
from neuralmech.discovery.scale import ScaleAlgebra, rule
from neuralmech.discovery.schema import arguments, shape_of
from neuralmech.discovery.trace import operation, place

REDUCES = "dim keepdim dtype"


@rule("var", "std", takes="self", given="dim unbiased correction keepdim")
@rule("var_mean", takes="self", given="dim unbiased correction keepdim", outputs=2)
def _moment(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Any:
    first = _alike(algebra, node, x)
    val = node.meta["val"]
    if operation(node) == "var_mean":
        return algebra.combine([first], [2]).reshape(val[0].shape), first.reshape(val[1].shape)
    return algebra.combine([first], [2 if operation(node) == "var" else 1]).reshape(val.shape)


@rule("norm", "linalg_vector_norm", takes="self", given="p ord dim keepdim dtype")
def _length(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Any:
    """Homogeneous of degree 1, whatever its order but 0, which counts."""
    given, first = arguments(node), _alike(algebra, node, x).reshape(shape_of(node))
    return algebra.constant(first.shape) if given.get("ord", given.get("p")) == 0 else first


def _alike(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    """Demand that x scales alike along what a node takes together; returns these dims narrowed to 1."""
    return algebra.unify(algebra.ids(x), Reduction.of(node).dims, node)


@rule("_weight_norm", "_weight_norm_interface", takes="v g", given="dim")
def _weight_norm(algebra: ScaleAlgebra, node: fx.Node, v: Any, g: Any) -> Any:
    """g·v/‖v‖: the scale of each slice of v along `dim`, of all of v for dim −1, is ignored; the result scales as g."""
    direction, dim = algebra.ids(v), arguments(node)["dim"]
    over = tuple(d for d in range(direction.dim()) if d != dim)  # −1 is not the last dim here
    algebra.unify(direction, over, node)
    out = algebra.ids(g).expand(direction.shape)
    return _with_others(algebra, node, out)


@rule("mean", "sum", "amax", "amin", takes="self", given=REDUCES)
def _mean(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    return _alike(algebra, node, x).reshape(shape_of(node))


@rule("cumsum", takes="self", given="dim dtype")
def _cumulative(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    return _alike(algebra, node, x).expand(shape_of(node))


@rule(*Pool.MEANS, takes="self", given="kernel_size stride padding ceil_mode count_include_pad divisor_override")
@rule(*Pool.LARGEST, takes="self", given=Pool.GIVEN)
@rule(*Pool.ADAPTIVE_MEANS, takes="self", given="output_size")
@rule(*Pool.WITH_PLACES, takes="self", given=Pool.GIVEN, outputs=2)
@rule(*Pool.ADAPTIVE_LARGEST, takes="self", given="output_size", outputs=2)
def _pool(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Any:
    """One exponent under each window; where the largest stands does not scale."""
    windows = Pool.of(node).windows(algebra.ids(x))
    return _with_others(algebra, node, _one_per_window(algebra, windows, node))


def _one_per_window(algebra: ScaleAlgebra, windows: Tensor, node: fx.Node) -> Tensor:
    first = (windows != geometry.PADDING).int().argmax(dim=-1, keepdim=True)
    chosen = windows.gather(-1, first)
    algebra.equate(torch.where(windows == geometry.PADDING, chosen, windows), chosen, node)
    return chosen.squeeze(-1)


@rule(*Norm.NAMES, takes=Norm.TAKES, given=Norm.GIVEN)
def _norm(algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any = None, bias: Any = None) -> Any:
    ids, norm = algebra.ids(x), Norm.of(node)
    if norm is None:
        return _affine(algebra, node, x, weight, bias)  # running statistics
    _note_epsilon(algebra, node)
    out = algebra.constant(torch.Size(norm.affine))
    if weight is not None:
        out = algebra.ids(weight).reshape(norm.affine)
    if not norm.centred and factor_is_ignored(node, len(norm.dims)):
        return algebra.combine([ids, out], [1, 1])
    algebra.unify(ids.reshape(norm.view), norm.dims, node)
    if bias is not None:
        algebra.equate(algebra.ids(bias).reshape(norm.affine), out, node)
    return _with_others(algebra, node, out.expand(ids.shape))


def _note_epsilon(algebra: ScaleAlgebra, node: fx.Node) -> None:
    """Name an eps that is larger than that of any built-in norm."""
    eps = arguments(node)["eps"]
    if isinstance(eps, float) and eps > 1e-4:
        algebra.approximations[f"eps of {eps:g} at {place(node)}: up to that much of the variance"] = None


@rule("_native_batch_norm_legit_no_training", takes=Norm.TAKES, given=Norm.STATISTICS)
def _affine(algebra: ScaleAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any) -> Any:
    """γ(x − μ)/σ + β with fixed μ and σ: γ and β scale together, x does not."""
    algebra.forbid(x, f"the statistics are fixed at {place(node)}")
    shape = shape_of(arguments(node)["input"])
    along = [-1 if d == 1 else 1 for d in range(len(shape))]
    out = algebra.constant(torch.Size([1] * len(shape))) if weight is None else algebra.ids(weight).reshape(along)
    if bias is not None:
        algebra.equate(algebra.ids(bias).reshape(along), out, node)
    return _with_others(algebra, node, out.expand(shape))


def _with_others(algebra: ScaleAlgebra, node: fx.Node, out: Tensor) -> Any:
    """What an operation gives first, with its other outputs (statistics, places), which do not scale."""
    val = node.meta["val"]
    if not isinstance(val, (tuple, list)):
        return out
    return (out, *(algebra.constant(v.shape) for v in val[1:]))
