"""How displacements pass what takes elements together: means, pools, moments, norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.centring import is_taken_out
from neuralmech.discovery.operations import Norm, Pool, Reduction
from neuralmech.discovery.schema import arguments, shape_of
from neuralmech.discovery.shift import ShiftAlgebra, let_none_pass, rule
from neuralmech.discovery.shift_values import CONSTANT, MOST_TERMS, Sector, Shift, multiplied, sets_under
from neuralmech.discovery.trace import operation, place


@rule("mean", "sum", takes="self", given="dim keepdim dtype")
def _mean(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    if is_taken_out(node):
        return {}  # see `shift_rules`
    taken = Reduction.of(node)
    factor = taken.count if operation(node) == "sum" else 1

    def windows(tensor: Tensor) -> Tensor:
        rest = [d for d in range(tensor.dim()) if d not in taken.dims]
        return tensor.permute(*rest, *taken.dims).flatten(len(rest)).reshape(*shape_of(node), -1)

    return multiplied(_pooled(algebra, node, algebra.shift(x), windows, average=True), factor)


@rule(*Pool.MEANS, takes="self", given="kernel_size stride padding ceil_mode count_include_pad")
@rule(*Pool.LARGEST, takes="self", given=Pool.GIVEN)
@rule(*Pool.ADAPTIVE_MEANS, *Pool.ADAPTIVE_LARGEST, takes="self", given="output_size")
def _pool(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Any:
    pool = Pool.of(node)
    blind = not pool.counts_padding  # what sticks out does not count
    return _with_others(
        node, _pooled(algebra, node, algebra.shift(x), pool.windows, average=not pool.is_max, blind=blind)
    )


@rule("var", "std", takes="self", given="dim unbiased correction keepdim")
def _spread(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    taken = Reduction.of(node)
    algebra.ignore(algebra.shift(x), taken.shape, taken.dims, f"not constant over {node.name} at {place(node)}")
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
                out[(*key, node.name)] = Sector(sets_under(seen.amplitude) + 1, terms, sector.origins)
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


@rule(*Norm.NAMES, takes=Norm.TAKES, given=Norm.GIVEN)
def _norm(algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any = None, bias: Any = None) -> Any:
    norm = Norm.of(node)
    if norm is None:
        return _affine(algebra, node, x, weight, bias)
    if norm.centred:
        algebra.ignore(algebra.shift(x), norm.view, norm.dims, f"not constant over {node.name} at {place(node)}")
    else:
        let_none_pass(algebra, node, algebra.shift(x))
    let_none_pass(algebra, node, weight)
    return _biased(algebra, node, bias, norm.affine)


@rule("_native_batch_norm_legit_no_training", takes=Norm.TAKES, given=Norm.STATISTICS)
def _affine(algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any) -> Any:
    """γ(x − μ)/σ + β with fixed μ and σ: β displaces its channel."""
    let_none_pass(algebra, node, algebra.shift(x), weight)
    rank = len(shape_of(arguments(node)["input"]))
    return _biased(algebra, node, bias, tuple(-1 if d == 1 else 1 for d in range(rank)))


def _biased(algebra: ShiftAlgebra, node: fx.Node, bias: Any, view: tuple[int, ...]) -> Any:
    """A norm's output is displaced by its bias alone, which acts along ``x.reshape(view)``."""
    shape = shape_of(arguments(node)["input"])
    return _with_others(
        node, {k: s.map(lambda t: t.reshape(view).expand(shape)) for k, s in algebra.shift(bias).items()}
    )


def _with_others(node: fx.Node, out: Shift) -> Any:
    """What an operation gives first, with its other outputs (statistics, places), which nothing displaces."""
    val = node.meta["val"]
    return (out, *({} for _ in val[1:])) if isinstance(val, (tuple, list)) else out
