"""How log-scales pass what picks elements by an index, or adds them up where an index says.

Where the index is known (it depends on no data, no parameter and no chance), each element keeps its exponent. Any
other may point anywhere along its dims, which then scale alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.engine import barrier, known_numbers
from neuralmech.discovery.operations import indexed_dims
from neuralmech.discovery.scale import ScaleAlgebra, Zeros, rule
from neuralmech.discovery.schema import arguments, shape_of
from neuralmech.discovery.trace import operation


@rule("index", "_unsafe_index", takes="self", given="indices")
def _index(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Any:
    where, ids = known_numbers(algebra, node, "indices"), algebra.ids(x)
    if where is not None:
        return torch.ops.aten.index(ids, where)
    dims = indexed_dims(arguments(node)["indices"])
    return geometry.picked(algebra.unify(ids, dims, node), dims, shape_of(node))


@rule("index_select", takes="self", given="dim index")
def _index_select(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Any:
    where, ids, dim = known_numbers(algebra, node, "index"), algebra.ids(x), arguments(node)["dim"]
    if isinstance(where, Tensor):
        return ids.index_select(dim, where)
    return algebra.unify(ids, (dim % ids.dim(),), node).expand(shape_of(node))


@rule("gather", takes="self", given="dim index sparse_grad")
def _gather(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Any:
    where, ids, dim = known_numbers(algebra, node, "index"), algebra.ids(x), arguments(node)["dim"]
    if isinstance(where, Tensor):
        return ids.gather(dim, where)
    first, shape = algebra.unify(ids, (dim % ids.dim(),), node), shape_of(node)
    return geometry.within(first, shape, dim % ids.dim()).expand(shape)


@rule("own_rows", takes="stack", given="by ends")
def _own_rows(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    return algebra.unify(algebra.ids(x), (0,), node)[0]


@rule("index_add", takes="self source", given="dim index alpha")
@rule("index_copy", takes="self source", given="dim index")
@rule("scatter_add", takes="self src", given="dim index")
@rule("scatter", takes="self src", given="dim index value")
@rule("index_reduce", takes="self source", given="dim index reduce include_self")
@rule("scatter_reduce", takes="self src", given="dim index reduce include_self")
def _put(algebra: ScaleAlgebra, node: fx.Node, x: Any, source: Any = None) -> Any:
    """Elements of `source` added to, or put in the place of, elements of x: all that meet scale alike."""
    name, how = operation(node), arguments(node)
    if "value" in how:  # a number in their place
        return _fill(algebra, node, x)
    if how.get("reduce") in ("prod", "multiply"):
        return barrier(algebra, node, x, source)
    where, ids, given = known_numbers(algebra, node, "index"), algebra.ids(x), algebra.ids(source)
    dim = how["dim"] % max(ids.dim(), 1)
    by_position = name in ("scatter_add", "scatter", "scatter_reduce")
    if by_position:
        given = given[tuple(slice(0, n) for n in shape_of(how["index"]))]
    if not isinstance(where, Tensor):
        first = algebra.unify(ids, (dim,), node)
        algebra.equate(given, geometry.within(first, given.shape, dim), node)
        return first.expand(ids.shape)
    places = torch.arange(ids.numel()).reshape(ids.shape)
    at = places.gather(dim, where) if by_position else places.index_select(dim, where)
    replaces = name in ("index_copy", "scatter") and how.get("reduce") is None
    return _put_at(algebra, node, (ids, isinstance(x, Zeros)), (at, given), replaces=replaces)


@rule("index_fill", takes="self", given="dim index value")
def _fill(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Any:
    """Numbers in the place of some elements."""
    value = arguments(node)["value"]
    known = algebra.concrete.get(value) if isinstance(value, fx.Node) else value
    if known is None or known != 0:
        algebra.forbid(x, "a number is put in its place")
    return algebra.ids(x)


@rule("masked_scatter", takes="self source", given="mask")
def _masked_scatter(algebra: ScaleAlgebra, node: fx.Node, x: Any, source: Any) -> Tensor:
    """Elements of `source`, whichever, in the place of some of x."""
    ids, given = algebra.ids(x), algebra.ids(source)
    first = algebra.unify(given, tuple(range(given.dim())), node)
    algebra.equate(ids, first.reshape(-1)[:1].expand(ids.shape), node)
    return ids


@rule("index_put", "_unsafe_index_put", takes="self values", given="indices accumulate")
def _index_put(algebra: ScaleAlgebra, node: fx.Node, x: Any, values: Any) -> Any:
    how = arguments(node)
    where, ids, given = known_numbers(algebra, node, "indices"), algebra.ids(x), algebra.ids(values)
    if where is None:
        if not isinstance(x, Zeros) and given.dim() > 0:
            return barrier(algebra, node, x, values)
        first = algebra.unify(ids, indexed_dims(how["indices"]), node)
        if isinstance(values, Zeros):
            return first.expand(ids.shape)
        every = algebra.unify(given, tuple(range(given.dim())), node)
        algebra.equate(
            algebra.unify(first, tuple(range(first.dim())), node).reshape(-1)[:1], every.reshape(-1)[:1], node
        )
        return first.expand(ids.shape)
    at = torch.ops.aten.index(torch.arange(ids.numel()).reshape(ids.shape), where)
    return _put_at(
        algebra, node, (ids, isinstance(x, Zeros)), (at, given.expand(at.shape)), replaces=not how["accumulate"]
    )


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
