"""How displacements pass every operation; one that is not here lets none pass."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.centring import centred_dims, is_taken_out
from neuralmech.discovery.distinct import distinct_rows
from neuralmech.discovery.engine import Parameter
from neuralmech.discovery.shift import CONSTANT, Key, Sector, Shift, ShiftAlgebra, Terms, rule
from neuralmech.discovery.shift_values import (
    MOST_TERMS,
    combined,
    expanded,
    let_none_pass,
    masked,
    multiplied,
    narrow_pairs,
)
from neuralmech.discovery.trace import operation, place

LARGE = 4096  # elements: below, a copy costs less than to look at it


@rule(*geometry.MOVEMENT, *geometry.ASSIGNMENTS, takes=geometry.MOVED, given=geometry.MOVES)
def _move(algebra: ShiftAlgebra, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    many = isinstance(args[0], (list, tuple))
    count = 2 if operation(node) in geometry.ASSIGNMENTS else 1
    operands = [algebra.shift(a) for a in (args[0] if many else args[:count])]
    shapes = [n.meta["val"].shape for n in (node.args[0] if many else node.args[:count])]  # type: ignore[union-attr]
    parts: list[tuple[Key, Any, Terms, tuple[Terms, ...]]] = []
    for key in dict.fromkeys(k for shift in operands for k in shift):
        sectors = _aligned([shift.get(key) for shift in operands], shapes)

        def moved(tensors: list[Tensor]) -> Any:
            result = geometry.move(node, (tensors, *args[1:]) if many else (*tensors, *args[count:]), kwargs)
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
def _add(algebra: ShiftAlgebra, node: fx.Node, x: Any, y: Any, *, alpha: float = 1) -> Shift:
    over = centred_dims(node.args[1], node.args[0]) if operation(node) == "sub" and alpha == 1 else ()
    if over and is_taken_out(node.args[1]):  # type: ignore[arg-type]
        why = f"not constant over the mean taken out at {place(node)}"
        algebra.ignore(algebra.shift(x), node.meta["val"].shape, over, why)
        return {}
    shape = node.meta["val"].shape
    if operation(node) == "rsub":  # y − αx
        x, y = y, x
    sign = alpha if operation(node) == "add" else -alpha
    return combined(expanded(algebra.shift(x), shape), multiplied(expanded(algebra.shift(y), shape), sign), node)


@rule("neg", takes="self")
def _neg(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    return multiplied(algebra.shift(x), -1)


@rule("mul", "div", takes="self other", given="rounding_mode")
def _mul(algebra: ShiftAlgebra, node: fx.Node, x: Any, y: Any, **options: Any) -> Shift:
    if options.get("rounding_mode"):
        let_none_pass(algebra, node, x, y)
        return {}
    factor = y if isinstance(y, (int, float)) else None
    if factor:
        return multiplied(algebra.shift(x), factor if "mul" in str(node.target) else 1 / factor)
    if factor is None and algebra.shift(y) == {}:
        return _unmasked(algebra, node, _modulated(algebra.shift(x), node, 1), 1)
    if algebra.shift(x) == {} and "mul" in str(node.target):
        return _unmasked(algebra, node, _modulated(algebra.shift(y), node, 0), 0)
    if isinstance(y, Parameter):  # a temperature, which must stay as it is
        let_none_pass(algebra, node, y)
        return _modulated(algebra.shift(x), node, 1)
    if isinstance(x, Parameter) and "mul" in str(node.target):
        let_none_pass(algebra, node, x)
        return _modulated(algebra.shift(y), node, 0)
    let_none_pass(algebra, node, x, y)
    return {}


def _unmasked(algebra: ShiftAlgebra, node: fx.Node, x: Shift, operand: int) -> Shift:
    """Nothing is displaced where the numbers that multiply are known to be zero."""
    known = algebra.concrete.get(node.args[operand])  # type: ignore[arg-type]
    if known is None or "mul" not in str(node.target):
        return x
    return masked(x, known == 0)


def _modulated(x: Shift, node: fx.Node, operand: int) -> Shift:
    """Times numbers that are not displaced (a gate, the noise of stochastic depth): amplitudes of their own."""
    shape = node.meta["val"].shape
    other = node.args[operand].meta["val"].shape  # type: ignore[union-attr]
    cells = torch.arange(int(np.prod(other))).reshape(other).expand(shape)
    out: Shift = {}
    for key, sector in expanded(x, shape).items():
        fresh = narrow_pairs(sector.amplitude, cells)
        moved = torch.where(geometry.narrow(sector.amplitude)[0] == 0, 0, fresh) if sector.origins else fresh
        out[(*key, node.name)] = Sector(moved.expand(shape), sector.terms, sector.origins)
    return out


@rule("mean", "sum", takes="self", given="dim keepdim dtype")
def _mean(algebra: ShiftAlgebra, node: fx.Node, x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> Shift:
    if is_taken_out(node):
        return {}  # see `_add`
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    over = geometry.dims_of(dims, len(shape))
    factor = 1 if "sum" not in str(node.target) else int(np.prod([shape[d] for d in over]))

    def windows(tensor: Tensor) -> Tensor:
        rest = [d for d in range(tensor.dim()) if d not in over]
        return tensor.permute(*rest, *over).flatten(len(rest)).reshape(*node.meta["val"].shape, -1)

    return multiplied(_pooled(algebra, node, algebra.shift(x), windows, average=True), factor)


POOL = "kernel_size stride padding dilation ceil_mode count_include_pad"


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", takes="self", given=POOL)
def _pool(algebra: ShiftAlgebra, node: fx.Node, x: Any, kernel: Any, stride: Any = None, *rest: Any, **_: Any) -> Shift:
    from_max, rank = "max" in str(node.target), geometry.pool_rank(node)
    padding, dilation = rest[0] if rest else 0, rest[1] if from_max and len(rest) > 1 else 1

    def windows(tensor: Tensor) -> Tensor:
        return geometry.pool_windows(tensor, node.meta["val"].shape, rank, kernel, stride, padding, dilation)

    if not from_max and len(rest) > 2 and rest[2] is False:  # count_include_pad: what sticks out does not count
        return _pooled(algebra, node, algebra.shift(x), windows, average=True, blind=True)
    if not from_max and len(rest) > 3 and rest[3] is not None:  # divisor_override: a sum, not a mean
        let_none_pass(algebra, node, algebra.shift(x))
        return {}
    return _pooled(algebra, node, algebra.shift(x), windows, average=not from_max, blind=from_max)


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", takes="self", given="output_size")
def _adaptive_pool(algebra: ShiftAlgebra, node: fx.Node, x: Any, size: Any) -> Shift:
    def windows(tensor: Tensor) -> Tensor:
        return geometry.adaptive_windows(tensor, node.meta["val"].shape, geometry.pool_rank(node))

    return _pooled(algebra, node, algebra.shift(x), windows, average=True, blind=True)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", takes="self", given="output_size")
def _adaptive_max_pool(algebra: ShiftAlgebra, node: fx.Node, x: Any, size: Any) -> tuple:
    def windows(tensor: Tensor) -> Tensor:
        return geometry.adaptive_windows(tensor, node.meta["val"][0].shape, geometry.pool_rank(node))

    return _pooled(algebra, node, algebra.shift(x), windows, average=False, blind=True), {}


@rule("var", "std", takes="self", given="dim unbiased correction keepdim")
def _spread(algebra: ShiftAlgebra, node: fx.Node, x: Any, dims: Any = None, *_: Any, **named: Any) -> Shift:
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    dims = named.get("dim", None if isinstance(dims, bool) else dims)  # var(x, False): all of them
    over = geometry.dims_of(dims, len(shape))
    algebra.ignore(algebra.shift(x), shape, over, f"not constant over {node.name} at {place(node)}")
    return {}


def _pooled(
    algebra: ShiftAlgebra, node: fx.Node, x: Shift, windows: Any, *, average: bool, blind: bool = False
) -> Shift:
    """Pass what is the same all over each window; an average also mixes amplitudes into new ones.

    `blind` pools do not see what sticks out of the input.
    """
    out: Shift = {}
    for key, sector in x.items():
        seen = sector.map(windows)
        outside = seen.amplitude == geometry.PADDING
        inside = seen.map(lambda t, outside=outside: _fill(t, outside)) if blind else seen
        whole = blind or not bool(outside.any())
        passes = all(algebra.same(rows, rows[..., :1].expand_as(rows)) for _, rows in inside.terms)
        if whole and passes and (average or key == CONSTANT):
            terms = tuple((c, rows[..., 0]) for c, rows in inside.terms)
            if key == CONSTANT:
                out[key] = Sector(inside.amplitude[..., 0], terms)
            else:
                out[(*key, node.name)] = Sector(_mixed(seen.amplitude) + 1, terms, sector.origins)
        elif average and (averaged := _averaged(inside.amplitude, seen, count_all=not blind)) is not None:
            out[key if key == CONSTANT else (*key, node.name)] = averaged
        else:
            let_none_pass(algebra, node, {key: sector})
    return out


def _averaged(amplitude: Tensor, seen: Sector, *, count_all: bool) -> Sector | None:
    """The mean over windows of what is displaced differently, with one amplitude all over each; None if it has not.

    `amplitude` is that of what is inside (…, window); with `count_all`, what sticks out counts as not displaced.
    """
    width = seen.amplitude.shape[-1]
    if seen.origins or width * len(seen.terms) > MOST_TERMS:
        return None
    outside = seen.amplitude == geometry.PADDING
    first = _fill(seen.amplitude, outside)[..., :1] if count_all else amplitude[..., :1]
    if not bool(((seen.amplitude == first) | outside).all()):
        return None
    counts = torch.full_like(first[..., 0], width) if count_all else (~outside).sum(-1)
    terms = [
        (c / count, torch.where((counts == count) & ~outside[..., slot], rows[..., slot], 0))
        for count in counts.unique().tolist()
        for slot in range(width)
        for c, rows in seen.terms
    ]
    return Sector(first[..., 0], tuple(terms)) if len(terms) <= MOST_TERMS else None


def _fill(windows: Tensor, outside: Tensor) -> Tensor:
    """Put each window's first inner element where it sticks out."""
    first = windows.gather(-1, (~outside).int().argmax(dim=-1, keepdim=True))
    return torch.where(outside, first, windows)


def _mixed(amplitude: Tensor) -> Tensor:
    """Return one new amplitude per distinct set of amplitudes under a window."""
    flat = amplitude.reshape(-1, amplitude.shape[-1]).numpy()
    _, inverse = distinct_rows(flat)
    return torch.from_numpy(inverse.reshape(amplitude.shape[:-1]))


@rule(*geometry.NORMS, takes=geometry.NORM_TAKES, given=geometry.NORM_GIVEN)
def _norm(algebra: ShiftAlgebra, node: fx.Node, x: Any, *args: Any) -> Any:
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    norm = geometry.NORMS[node.target.overloadpacket.__name__](shape, *args)  # type: ignore[union-attr]
    if norm is None:
        return _affine(algebra, node, x, *args[:2])
    val = node.meta["val"]
    if norm.centred:
        algebra.ignore(algebra.shift(x), norm.view, norm.dims, f"not constant over {node.name} at {place(node)}")
    else:
        let_none_pass(algebra, node, algebra.shift(x))
    let_none_pass(algebra, node, norm.weight)
    affine = norm.affine
    out = {k: s.map(lambda t: t.reshape(affine).expand(shape)) for k, s in algebra.shift(norm.bias).items()}
    return (out, *({} for _ in val[1:])) if isinstance(val, (tuple, list)) else out


@rule("_native_batch_norm_legit_no_training", takes=geometry.NORM_TAKES, given=geometry.STATISTICS)
def _affine(algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any, *_: Any) -> Any:
    """γ(x − μ)/σ + β with fixed μ and σ: β displaces its channel."""
    let_none_pass(algebra, node, algebra.shift(x), weight)
    shape, val = node.args[0].meta["val"].shape, node.meta["val"]  # type: ignore[union-attr]
    along = [-1 if d == 1 else 1 for d in range(len(shape))]
    out = {k: s.map(lambda t: t.reshape(along).expand(shape)) for k, s in algebra.shift(bias).items()}
    return (out, *({} for _ in val[1:])) if isinstance(val, (tuple, list)) else out
