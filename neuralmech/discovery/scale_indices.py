"""How log-scales pass what picks elements by an index, or adds them up where an index says.

Where the index is known (it depends on no data, no parameter and no chance), each element keeps its exponent. Any
other may point anywhere along its dims, which then scale alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.engine import barrier, known_index
from neuralmech.discovery.scale import ScaleAlgebra, Zeros, is_zero, rule
from neuralmech.discovery.trace import operation


@rule("index", "_unsafe_index", takes="self", given="indices")
def _index(algebra: ScaleAlgebra, node: fx.Node, x: Any, indices: Any) -> Any:
    raw: Any = node.args[1]
    where, ids = known_index(algebra, raw), algebra.ids(x)
    if where is not None:
        return torch.ops.aten.index(ids, where)
    dims = geometry.indexed_dims(raw)
    return geometry.picked(algebra.unify(ids, dims, node), dims, node.meta["val"].shape)


@rule("index_select", takes="self", given="dim index")
def _index_select(algebra: ScaleAlgebra, node: fx.Node, x: Any, dim: int, index: Any) -> Any:
    where, ids = known_index(algebra, node.args[2]), algebra.ids(x)
    if isinstance(where, Tensor):
        return ids.index_select(dim, where)
    return algebra.unify(ids, (dim % ids.dim(),), node).expand(node.meta["val"].shape)


@rule("gather", takes="self", given="dim index sparse_grad")
def _gather(algebra: ScaleAlgebra, node: fx.Node, x: Any, dim: int, index: Any, **_: Any) -> Any:
    where, ids = known_index(algebra, node.args[2]), algebra.ids(x)
    if isinstance(where, Tensor):
        return ids.gather(dim, where)
    first, shape = algebra.unify(ids, (dim % ids.dim(),), node), node.meta["val"].shape
    return geometry.within(first, shape, dim % ids.dim()).expand(shape)


@rule("own_rows", takes="stack", given="by ends")
def _own_rows(algebra: ScaleAlgebra, node: fx.Node, x: Any, by: Any, ends: bool) -> Tensor:
    return algebra.unify(algebra.ids(x), (0,), node)[0]


@rule("index_add", takes="self source", given="dim index alpha")
@rule("index_copy", takes="self source", given="dim index")
@rule("scatter_add", takes="self src", given="dim index")
@rule("scatter", takes="self src", given="dim index value")
@rule("index_reduce", takes="self source", given="dim index reduce include_self")
@rule("scatter_reduce", takes="self src", given="dim index reduce include_self")
def _put(
    algebra: ScaleAlgebra, node: fx.Node, x: Any, dim: int, index: Any, source: Any, *how: Any, **named: Any
) -> Any:
    """Elements of `source` added to, or put in the place of, elements of x: all that meet scale alike."""
    name = operation(node)
    if "value" in str(node.target):  # a number in their place
        return _fill(algebra, node, x, source)
    if named.get("reduce", how[0] if how else "sum") in ("prod", "multiply"):
        return barrier(algebra, node, x, source)
    where, ids, given = known_index(algebra, node.args[2]), algebra.ids(x), algebra.ids(source)
    dim = dim % max(ids.dim(), 1)
    by_position = name in ("scatter_add", "scatter", "scatter_reduce")
    if by_position:
        given = given[tuple(slice(0, n) for n in node.args[2].meta["val"].shape)]  # type: ignore[union-attr]
    if not isinstance(where, Tensor):
        first = algebra.unify(ids, (dim,), node)
        algebra.equate(given, geometry.within(first, given.shape, dim), node)
        return first.expand(ids.shape)
    places = torch.arange(ids.numel()).reshape(ids.shape)
    at = places.gather(dim, where) if by_position else places.index_select(dim, where)
    replaces = name in ("index_copy", "scatter") and "reduce" not in named
    return _put_at(algebra, node, (ids, isinstance(x, Zeros)), (at, given), replaces=replaces)


def _fill(algebra: ScaleAlgebra, node: fx.Node, x: Any, value: Any) -> Any:
    """Numbers in the place of some elements."""
    if not is_zero(value):
        algebra.forbid(x, "a number is put in its place")
    return algebra.ids(x)


@rule("masked_scatter", takes="self source", given="mask")
def _masked_scatter(algebra: ScaleAlgebra, node: fx.Node, x: Any, mask: Any, source: Any) -> Tensor:
    """Elements of `source`, whichever, in the place of some of x."""
    ids, given = algebra.ids(x), algebra.ids(source)
    first = algebra.unify(given, tuple(range(given.dim())), node)
    algebra.equate(ids, first.reshape(-1)[:1].expand(ids.shape), node)
    return ids


@rule("index_fill", takes="self", given="dim index value")
def _index_fill(algebra: ScaleAlgebra, node: fx.Node, x: Any, dim: int, index: Any, value: Any) -> Any:
    return _fill(algebra, node, x, value)


@rule("index_put", "_unsafe_index_put", takes="self values", given="indices accumulate")
def _index_put(
    algebra: ScaleAlgebra, node: fx.Node, x: Any, indices: Any, values: Any, accumulate: bool = False
) -> Any:
    raw: Any = node.args[1]
    where, ids, given = known_index(algebra, raw), algebra.ids(x), algebra.ids(values)
    if where is None:
        if not isinstance(x, Zeros) and given.dim() > 0:
            return barrier(algebra, node, x, values)
        first = algebra.unify(ids, geometry.indexed_dims(raw), node)
        if isinstance(values, Zeros):
            return first.expand(ids.shape)
        every = algebra.unify(given, tuple(range(given.dim())), node)
        algebra.equate(
            algebra.unify(first, tuple(range(first.dim())), node).reshape(-1)[:1], every.reshape(-1)[:1], node
        )
        return first.expand(ids.shape)
    at = torch.ops.aten.index(torch.arange(ids.numel()).reshape(ids.shape), where)
    return _put_at(algebra, node, (ids, isinstance(x, Zeros)), (at, given.expand(at.shape)), replaces=not accumulate)


def _put_at(
    algebra: ScaleAlgebra, node: fx.Node, base: tuple[Tensor, bool], what: tuple[Tensor, Tensor], *, replaces: bool
) -> Tensor:
    """Exponents of x with those of a source at flat places; x is zero or not."""
    (ids, is_zero), (at, given) = base, what
    out = ids.reshape(-1).clone()
    if replaces or is_zero:
        out[at.reshape(-1)] = given.reshape(-1)
    algebra.equate(out[at.reshape(-1)], given.reshape(-1), node)  # several may come to one place
    return out.reshape(ids.shape)
