"""How shifts pass what picks elements: by an index, or the largest along a dim.

Where an index is known, each element is displaced as it was. Any other choice passes what displaces all that there is
to choose from alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.engine import known_numbers
from neuralmech.discovery.operations import Reduction, indexed_dims, outside_triangle
from neuralmech.discovery.schema import arguments, shape_of
from neuralmech.discovery.shift import ShiftAlgebra, let_none_pass, rule
from neuralmech.discovery.shift_values import Sector, Shift, combined, expanded, masked, paired, sets_along
from neuralmech.discovery.trace import place


def _one_of(
    algebra: ShiftAlgebra,
    node: fx.Node,
    x: Shift,
    dims: tuple[int, ...],
    spread: Callable[[Tensor], Tensor],
    places: Tensor | None = None,
) -> Shift:
    """One element along `dims`, whichever: what displaces all alike passes; `spread` takes it to the output's shape.

    Where the whole is picked along `dims`, so do the same unknowns times amplitudes that differ: those of the `places`.
    """
    out: Shift = {}
    for key, sector in x.items():
        whole = bool((sector.amplitude == geometry.first_along(sector.amplitude, dims)).all())
        alike = all(algebra.same(rows, geometry.first_along(rows, dims).expand_as(rows)) for _, rows in sector.terms)
        if whole and alike:
            out[key] = Sector(
                spread(geometry.first_along(sector.amplitude, dims)),
                tuple((c, spread(geometry.first_along(rows, dims))) for c, rows in sector.terms),
                sector.origins,
            )
        elif alike and places is not None and not sector.origins:
            mixed = spread(sets_along(sector.amplitude, dims))
            terms = tuple((c, spread(geometry.first_along(rows, dims))) for c, rows in sector.terms)
            out[(*key, node.name)] = Sector(paired(mixed, places), terms)
        else:
            let_none_pass(algebra, node, {key: sector})
    return out


def _mapped(x: Shift, function: Callable[[Tensor], Tensor]) -> Shift:
    return {key: sector.map(function) for key, sector in x.items()}


@rule("index", "_unsafe_index", takes="self", given="indices")
def _index(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    where, shape, given = known_numbers(algebra, node, "indices"), shape_of(node), arguments(node)
    if where is not None:
        return _mapped(algebra.shift(x), lambda t: torch.ops.aten.index(t, where))
    dims = indexed_dims(given["indices"])
    places = geometry.picked_places(dims, len(shape_of(given["self"])), shape)
    return _one_of(algebra, node, algebra.shift(x), dims, lambda t: geometry.picked(t, dims, shape), places)


@rule("index_select", takes="self", given="dim index")
def _index_select(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    where, shape, dim = known_numbers(algebra, node, "index"), shape_of(node), arguments(node)["dim"]
    if where is not None:
        return _mapped(algebra.shift(x), lambda t: t.index_select(dim, where))
    dims = (dim % len(shape),)
    places = geometry.picked_places(dims, len(shape), shape)
    return _one_of(algebra, node, algebra.shift(x), dims, lambda t: t.expand(shape), places)


@rule("gather", takes="self", given="dim index sparse_grad")
def _gather(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    where, shape, dim = known_numbers(algebra, node, "index"), shape_of(node), arguments(node)["dim"]
    if where is not None:
        return _mapped(algebra.shift(x), lambda t: t.gather(dim, where))
    at = dim % len(shape)
    return _one_of(algebra, node, algebra.shift(x), (at,), lambda t: geometry.within(t, shape, at).expand(shape))


@rule("own_rows", takes="stack", given="by ends")
def _own_rows(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    """Σ over experts of a mask of rows times what displaces the expert's: an amplitude of its own for each of them."""
    out: Shift = {}
    rows = shape_of(node)[0]
    for key, sector in algebra.shift(x).items():
        row = torch.arange(rows).reshape(-1, *[1] * (sector.amplitude.dim() - 2)).expand(sector.amplitude.shape[1:])
        for expert in range(len(sector.amplitude)):
            amplitude = paired(sector.amplitude[expert], row)
            if sector.origins:
                amplitude = torch.where(sector.amplitude[expert] == 0, 0, amplitude)
            terms = tuple((c, t[expert]) for c, t in sector.terms)
            out[(*key, node.name, expert)] = Sector(amplitude, terms, sector.origins)
    return out


@rule("max", "min", "sort", "topk", takes="self", given="dim k keepdim descending largest sorted stable", outputs=2)
@rule("amax", "amin", "logsumexp", takes="self", given="dim keepdim")
def _extreme(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Any:
    """max(x + c) = max(x) + c, and log Σ exp(x + c) likewise; where they stand stays."""
    over, val = Reduction.of(node), node.meta["val"]
    shape = val[0].shape if isinstance(val, (tuple, list)) else val.shape

    def spread(t: Tensor) -> Tensor:
        return t.expand(shape) if len(shape) == len(over.shape) else t.reshape(shape)

    out = _one_of(algebra, node, algebra.shift(x), over.dims, spread)
    return (out, {}) if isinstance(val, (tuple, list)) else out


@rule("argmax", "argmin", "argsort", takes="self", given="dim keepdim descending stable")
def _place(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    over, why = Reduction.of(node), f"not the same for all that {node.name} compares at {place(node)}"
    algebra.ignore(algebra.shift(x), over.shape, over.dims, why)
    return {}


@rule("where", takes="self other", given="condition")
def _where(algebra: ShiftAlgebra, node: fx.Node, x: Any, y: Any) -> Shift:
    """−∞ is displaced by nothing; of other values it must be known which are chosen."""
    known, shape = known_numbers(algebra, node, "condition"), shape_of(node)
    for kept, filled in ((x, y), (y, x)):
        if isinstance(filled, float) and math.isinf(filled):
            return expanded(algebra.shift(kept), shape)
    if known is not None:
        first, second = (expanded(algebra.shift(v), shape) for v in (x, y))
        return combined(masked(first, ~known), masked(second, known), node)
    let_none_pass(algebra, node, algebra.shift(x), algebra.shift(y))
    return {}


@rule("tril", "triu", takes="self", given="diagonal")
def _triangle(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    return masked(algebra.shift(x), outside_triangle(node))


@rule("masked_fill", takes="self", given="mask value")
def _masked_fill(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    """Logits that a mask takes out: −∞ stays −∞; and so does any number, where it is known which are taken out."""
    shape, known, given = shape_of(node), known_numbers(algebra, node, "mask"), arguments(node)["value"]
    value = algebra.concrete.get(given) if isinstance(given, fx.Node) else given
    if value is not None and math.isinf(value):
        return expanded(algebra.shift(x), shape)
    if known is not None and value is not None:
        return masked(expanded(algebra.shift(x), shape), known)
    let_none_pass(algebra, node, algebra.shift(x))
    return {}
