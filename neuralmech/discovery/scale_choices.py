"""How log-scales pass what chooses: comparisons, the largest, the order.

A choice is the same after a transformation where all that it compares scale alike by a positive factor; a number
other than zero does not scale. What is chosen then scales as the rest.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.scale import ScaleAlgebra, is_zero, rule
from neuralmech.discovery.scale_rules import is_least_value
from neuralmech.discovery.trace import operation


@rule("gt", "lt", "ge", "le", "eq", "ne", takes="self other")
def _compare(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Tensor:
    if not is_zero(y):
        algebra.equate(algebra.ids(x), algebra.ids(y), node)
    return algebra.constant(node.meta["val"].shape)


@rule("sign", "sgn", "signbit", "isnan", "isinf", "isfinite", "logical_not", takes="self")
def _sign(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    return algebra.constant(node.meta["val"].shape)


@rule("maximum", "minimum", "fmax", "fmin", takes="self other")
def _larger(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Tensor:
    x_ids, y_ids = algebra.ids(x), algebra.ids(y)
    if operation(node) in ("maximum", "fmax") and is_least_value(algebra, node, y):
        return x_ids.expand(node.meta["val"].shape)
    if not is_zero(y):
        algebra.equate(x_ids, y_ids, node)
    return x_ids.expand(node.meta["val"].shape)


@rule("max", "min", takes="self other", given="dim keepdim", outputs=2)
@rule("median", "nanmedian", "mode", "kthvalue", takes="self", given="k dim keepdim", outputs=2)
@rule("cummax", "cummin", "sort", "topk", takes="self", given="dim k descending largest sorted stable", outputs=2)
@rule("argmax", "argmin", "argsort", takes="self", given="dim keepdim descending stable")
def _choose(algebra: ScaleAlgebra, node: fx.Node, x: Any, *args: Any, **named: Any) -> Any:
    """Values along a dim and where they stand, or one of both."""
    if args and operation(node) in ("max", "min") and "other" in str(node.target):
        return _larger(algebra, node, x, args[0])
    dim = chosen_dim(node, args, named)
    ids = algebra.ids(x)
    first = algebra.unify(ids, geometry.dims_of(dim, ids.dim()), node)
    val = node.meta["val"]
    if not isinstance(val, (tuple, list)):
        return algebra.constant(val.shape) if operation(node).startswith("arg") else first.reshape(val.shape)
    values = first.expand(val[0].shape) if first.dim() == val[0].dim() else first.reshape(val[0].shape)
    return values, algebra.constant(val[1].shape)


def chosen_dim(node: fx.Node, args: tuple, named: dict[str, Any]) -> int | None:
    """Along which dim an operation chooses; None for all of a tensor."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    at = next((i for i, a in enumerate(schema) if a.name == "dim"), None)
    if at is None or "dim" in named:
        return named.get("dim")
    return args[at - 1] if at - 1 < len(args) else schema[at].default_value
