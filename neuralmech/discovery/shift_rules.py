"""How displacements pass every operation; one that is not here lets none pass."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.centring import centred_dims, is_taken_out
from neuralmech.discovery.engine import Parameter
from neuralmech.discovery.movements import ASSIGNMENTS, MOVED, MOVEMENT, MOVES, move, moved_nodes
from neuralmech.discovery.schema import arguments, shape_of
from neuralmech.discovery.shift import ShiftAlgebra, let_none_pass, rule
from neuralmech.discovery.shift_values import (
    Key,
    Sector,
    Shift,
    Terms,
    combined,
    expanded,
    masked,
    multiplied,
    narrow_pairs,
)
from neuralmech.discovery.trace import operation, place

LARGE = 4096  # elements: below, a copy costs less than to look at it


@rule(*MOVEMENT, *ASSIGNMENTS, takes=MOVED, given=MOVES)
def _move(algebra: ShiftAlgebra, node: fx.Node, *values: Any) -> Any:
    shapes = [shape_of(n) for n in moved_nodes(node)]
    many = isinstance(values[0], (list, tuple))
    operands = [algebra.shift(v) for v in (values[0] if many else values[: len(shapes)])]
    parts: list[tuple[Key, Any, Terms, tuple[Terms, ...]]] = []
    for key in dict.fromkeys(k for shift in operands for k in shift):
        sectors = _aligned([shift.get(key) for shift in operands], shapes)

        def moved(tensors: list[Tensor]) -> Any:
            result = move(node, tensors)
            return result if isinstance(result, tuple) else _compact(result, tensors)

        origins = next((shift[key].origins for shift in operands if key in shift), ())
        amplitude = moved([s.amplitude for s in sectors])
        terms = tuple(
            (sectors[0].terms[j][0], moved([s.terms[j][1] for s in sectors])) for j in range(len(sectors[0].terms))
        )
        parts.append((key, amplitude, terms, origins))
    val = node.meta["val"]
    if isinstance(val, (list, tuple)):
        return tuple(
            {key: Sector(a[i], tuple((c, r[i]) for c, r in terms), o) for key, a, terms, o in parts}
            for i in range(len(val))
        )
    return {key: Sector(amplitude, terms, origins) for key, amplitude, terms, origins in parts}


def _compact(moved: Tensor, tensors: list[Tensor]) -> Tensor:
    """Where an operation copied, keep one of what is the same along a dim, such as a bias at all positions."""
    if any(moved.data_ptr() == t.data_ptr() for t in tensors) or moved.numel() < LARGE:
        return moved
    kept = geometry.narrow(moved)[0]
    return kept.clone().expand(moved.shape) if kept.numel() < moved.numel() else moved


def _aligned(sectors: list[Sector | None], shapes: list[torch.Size]) -> list[Sector]:
    """Give operands of one movement the same terms: absent ones are displaced by nothing.

    Terms with the same coefficient share a place. With places of their own, two parts of one tensor that are put
    together again (a class token and the patches, in each block) would double the number of terms each time.
    """
    counts: Counter[Fraction] = Counter()
    for sector in sectors:
        counts |= Counter(c for c, _ in sector.terms) if sector else Counter()
    out = []
    for sector, shape in zip(sectors, shapes, strict=True):
        nothing = torch.zeros((), dtype=torch.int64).expand(shape)
        terms: list[tuple[Fraction, Tensor]] = []
        for c, count in counts.items():
            mine = [rows for own, rows in sector.terms if own == c] if sector else []
            terms += [(c, rows) for rows in (*mine, *[nothing] * (count - len(mine)))]
        out.append(Sector(sector.amplitude if sector else nothing, tuple(terms)))
    return out


@rule("zero", takes="self")
def _zero(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    """``x.zero_()`` reads nothing of x, and nothing displaces it."""
    return {}


@rule("add", "sub", "rsub", takes="self other", given="alpha")
def _add(algebra: ShiftAlgebra, node: fx.Node, x: Any, y: Any) -> Shift:
    given, shape = arguments(node), shape_of(node)
    alpha, mean = given["alpha"], given["other"]
    over = centred_dims(mean, given["self"]) if operation(node) == "sub" and alpha == 1 else ()
    if over and is_taken_out(mean):
        algebra.ignore(algebra.shift(x), shape, over, f"not constant over the mean taken out at {place(node)}")
        return {}
    if operation(node) == "rsub":  # y − αx
        x, y = y, x
    sign = alpha if operation(node) == "add" else -alpha
    return combined(expanded(algebra.shift(x), shape), multiplied(expanded(algebra.shift(y), shape), sign), node)


@rule("neg", takes="self")
def _neg(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    return multiplied(algebra.shift(x), -1)


@rule("mul", "div", takes="self other", given="rounding_mode")
def _mul(algebra: ShiftAlgebra, node: fx.Node, x: Any, y: Any) -> Shift:
    given, multiplies = arguments(node), operation(node) == "mul"
    if given.get("rounding_mode"):
        let_none_pass(algebra, node, x, y)
        return {}
    factor = y if isinstance(y, (int, float)) else None
    if factor:
        return multiplied(algebra.shift(x), factor if multiplies else 1 / factor)
    if factor is None and algebra.shift(y) == {}:
        out, known = _modulated(algebra.shift(x), node, given["other"]), algebra.concrete.get(given["other"])
        return out if known is None or not multiplies else masked(out, known == 0)
    if algebra.shift(x) == {} and multiplies:
        out, known = _modulated(algebra.shift(y), node, given["self"]), algebra.concrete.get(given["self"])
        return out if known is None else masked(out, known == 0)
    if isinstance(y, Parameter):  # a temperature, which must stay as it is
        let_none_pass(algebra, node, y)
        return _modulated(algebra.shift(x), node, given["other"])
    if isinstance(x, Parameter) and multiplies:
        let_none_pass(algebra, node, x)
        return _modulated(algebra.shift(y), node, given["self"])
    let_none_pass(algebra, node, x, y)
    return {}


def _modulated(x: Shift, node: fx.Node, factor: fx.Node) -> Shift:
    """Times numbers that are not displaced (a gate, the noise of stochastic depth): amplitudes of their own."""
    shape, other = shape_of(node), shape_of(factor)
    cells = torch.arange(other.numel()).reshape(other).expand(shape)
    out: Shift = {}
    for key, sector in expanded(x, shape).items():
        fresh = narrow_pairs(sector.amplitude, cells)
        moved = torch.where(geometry.narrow(sector.amplitude)[0] == 0, 0, fresh) if sector.origins else fresh
        out[(*key, node.name)] = Sector(moved.expand(shape), sector.terms, sector.origins)
    return out
