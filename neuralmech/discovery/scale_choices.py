"""How log-scales pass what chooses: comparisons, the largest, the order.

A choice is the same after a transformation where all that it compares scale alike by a positive factor; a number
other than zero does not scale. What is chosen then scales as the rest.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from neuralmech.discovery.operations import Reduction
from neuralmech.discovery.scale import ScaleAlgebra, is_zero, rule
from neuralmech.discovery.scale_rules import is_least_value
from neuralmech.discovery.schema import shape_of
from neuralmech.discovery.trace import operation


@rule("gt", "lt", "ge", "le", "eq", "ne", takes="self other")
def _compare(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Tensor:
    if not is_zero(y):
        algebra.equate(algebra.ids(x), algebra.ids(y), node)
    return algebra.constant(shape_of(node))


@rule("sign", "sgn", "signbit", "isnan", "isinf", "isfinite", "logical_not", takes="self")
def _sign(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    return algebra.constant(shape_of(node))


@rule("maximum", "minimum", "fmax", "fmin", takes="self other")
def _larger(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Tensor:
    x_ids, y_ids = algebra.ids(x), algebra.ids(y)
    if operation(node) in ("maximum", "fmax") and is_least_value(algebra, node, y):
        return x_ids.expand(shape_of(node))
    if not is_zero(y):
        algebra.equate(x_ids, y_ids, node)
    return x_ids.expand(shape_of(node))


@rule("max", "min", takes="self other", given="dim keepdim", outputs=2)
@rule("median", "nanmedian", "mode", "kthvalue", takes="self", given="k dim keepdim", outputs=2)
@rule("cummax", "cummin", "sort", "topk", takes="self", given="dim k descending largest sorted stable", outputs=2)
@rule("argmax", "argmin", "argsort", takes="self", given="dim keepdim descending stable")
def _choose(algebra: ScaleAlgebra, node: fx.Node, x: Any, other: Any = None) -> Any:
    """Values along a dim and where they stand, or one of both; or the larger of two tensors."""
    if other is not None:
        return _larger(algebra, node, x, other)
    first = algebra.unify(algebra.ids(x), Reduction.of(node).dims, node)
    val = node.meta["val"]
    if not isinstance(val, (tuple, list)):
        return algebra.constant(val.shape) if operation(node).startswith("arg") else first.reshape(val.shape)
    values = first.expand(val[0].shape) if first.dim() == val[0].dim() else first.reshape(val[0].shape)
    return values, algebra.constant(val[1].shape)
