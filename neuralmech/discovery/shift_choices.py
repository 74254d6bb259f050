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
from neuralmech.discovery.engine import known_index
from neuralmech.discovery.scale_choices import chosen_dim
from neuralmech.discovery.shift import Sector, Shift, ShiftAlgebra, first_along, rule
from neuralmech.discovery.shift_values import combined, expanded, let_none_pass, masked, paired, sets_along
from neuralmech.discovery.trace import operation, place


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
        whole = bool((sector.amplitude == first_along(sector.amplitude, dims)).all())
        alike = all(algebra.same(rows, first_along(rows, dims).expand_as(rows)) for _, rows in sector.terms)
        if whole and alike:
            out[key] = Sector(
                spread(first_along(sector.amplitude, dims)),
                tuple((c, spread(first_along(rows, dims))) for c, rows in sector.terms),
                sector.origins,
            )
        elif alike and places is not None and not sector.origins:
            mixed = spread(sets_along(sector.amplitude, dims))
            terms = tuple((c, spread(first_along(rows, dims))) for c, rows in sector.terms)
            out[(*key, node.name)] = Sector(paired(mixed, places), terms)
        else:
            let_none_pass(algebra, node, {key: sector})
    return out


def _mapped(x: Shift, function: Callable[[Tensor], Tensor]) -> Shift:
    return {key: sector.map(function) for key, sector in x.items()}


@rule("index", "_unsafe_index", takes="self", given="indices")
def _index(algebra: ShiftAlgebra, node: fx.Node, x: Any, indices: Any) -> Shift:
    raw: Any = node.args[1]
    where, shape = known_index(algebra, raw), node.meta["val"].shape
    if where is not None:
        return _mapped(algebra.shift(x), lambda t: torch.ops.aten.index(t, where))
    dims = geometry.indexed_dims(raw)
    places = geometry.picked_places(dims, len(node.args[0].meta["val"].shape), shape)  # type: ignore[union-attr]
    return _one_of(algebra, node, algebra.shift(x), dims, lambda t: geometry.picked(t, dims, shape), places)


@rule("index_select", takes="self", given="dim index")
def _index_select(algebra: ShiftAlgebra, node: fx.Node, x: Any, dim: int, index: Any) -> Shift:
    where, shape = known_index(algebra, node.args[2]), node.meta["val"].shape
    if where is not None:
        return _mapped(algebra.shift(x), lambda t: t.index_select(dim, where))
    dims = (dim % len(shape),)
    places = geometry.picked_places(dims, len(shape), shape)
    return _one_of(algebra, node, algebra.shift(x), dims, lambda t: t.expand(shape), places)


@rule("gather", takes="self", given="dim index sparse_grad")
def _gather(algebra: ShiftAlgebra, node: fx.Node, x: Any, dim: int, index: Any, **_: Any) -> Shift:
    where, shape = known_index(algebra, node.args[2]), node.meta["val"].shape
    if where is not None:
        return _mapped(algebra.shift(x), lambda t: t.gather(dim, where))
    at = dim % len(shape)
    return _one_of(algebra, node, algebra.shift(x), (at,), lambda t: geometry.within(t, shape, at).expand(shape))


@rule("own_rows", takes="stack", given="by ends")
def _own_rows(algebra: ShiftAlgebra, node: fx.Node, x: Any, by: Any, ends: bool) -> Shift:
    """Σ over experts of a mask of rows times what displaces the expert's: an amplitude of its own for each of them."""
    out: Shift = {}
    rows = node.meta["val"].shape[0]
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
def _extreme(algebra: ShiftAlgebra, node: fx.Node, x: Any, *args: Any, **named: Any) -> Any:
    """max(x + c) = max(x) + c, and log Σ exp(x + c) likewise; where they stand stays."""
    before: Any = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    dims = named.get("dim", args[0] if args else None) if operation(node)[0] in "al" else chosen_dim(node, args, named)
    over = geometry.dims_of(dims, len(before))
    val = node.meta["val"]
    shape = val[0].shape if isinstance(val, (tuple, list)) else val.shape

    def spread(t: Tensor) -> Tensor:
        return t.expand(shape) if len(shape) == len(before) else t.reshape(shape)

    out = _one_of(algebra, node, algebra.shift(x), over, spread)
    return (out, {}) if isinstance(val, (tuple, list)) else out


@rule("argmax", "argmin", "argsort", takes="self", given="dim keepdim descending stable")
def _place(algebra: ShiftAlgebra, node: fx.Node, x: Any, *args: Any, **named: Any) -> Shift:
    shape: Any = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    over = geometry.dims_of(chosen_dim(node, args, named), len(shape))
    algebra.ignore(algebra.shift(x), shape, over, f"not the same for all that {node.name} compares at {place(node)}")
    return {}


@rule("where", takes="self other", given="condition")
def _where(algebra: ShiftAlgebra, node: fx.Node, condition: Any, x: Any, y: Any) -> Shift:
    """−∞ is displaced by nothing; of other values it must be known which are chosen."""
    for kept, filled in ((x, y), (y, x)):
        if isinstance(filled, float) and math.isinf(filled):
            return _mapped(algebra.shift(kept), lambda t: t.expand(node.meta["val"].shape))
    known, shape = algebra.concrete.get(node.args[0]), node.meta["val"].shape  # type: ignore[arg-type]
    if known is not None:
        first, second = (expanded(algebra.shift(v), shape) for v in (x, y))
        return combined(masked(first, ~known), masked(second, known), node)
    let_none_pass(algebra, node, algebra.shift(x), algebra.shift(y))
    return {}


@rule("tril", "triu", takes="self", given="diagonal")
def _triangle(algebra: ShiftAlgebra, node: fx.Node, x: Any, diagonal: int = 0) -> Shift:
    shape = node.meta["val"].shape
    kept = node.target(torch.ones(shape[-2:]), diagonal)  # type: ignore[operator]
    return masked(algebra.shift(x), kept == 0)


@rule("masked_fill", takes="self", given="mask value")
def _masked_fill(algebra: ShiftAlgebra, node: fx.Node, x: Any, mask: Any, value: Any) -> Shift:
    """Logits that a mask takes out: −∞ stays −∞; and so does any number, where it is known which are taken out."""
    shape, known = node.meta["val"].shape, algebra.concrete.get(node.args[1])  # type: ignore[arg-type]
    if isinstance(value, float) and math.isinf(value):
        return _mapped(algebra.shift(x), lambda t: t.expand(shape))
    if known is not None and isinstance(value, (int, float)):
        return masked(expanded(algebra.shift(x), shape), known)
    let_none_pass(algebra, node, algebra.shift(x))
    return {}
