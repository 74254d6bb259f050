"""How shifts pass what mixes channels by a weight: linear maps, convolutions, products, attention, embeddings."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.engine import Parameter, known_numbers
from neuralmech.discovery.operations import Convolution, Embedding, Reduction
from neuralmech.discovery.redundancy import redundant_shift
from neuralmech.discovery.schema import arguments, shape_of
from neuralmech.discovery.shift import ShiftAlgebra, let_none_pass, rule
from neuralmech.discovery.shift_values import (
    CONSTANT,
    Key,
    Sector,
    Shift,
    combined,
    expanded,
    mixed_by,
    multiplied,
    paired,
    sets_along,
    source_of,
)
from neuralmech.discovery.trace import place
from neuralmech.symmetry.family import Axis


def _weighted(
    algebra: ShiftAlgebra,
    weight: Any,
    key: Key,
    amplitude: Tensor,
    shape: torch.Size,
    channel: int,
    axis: Axis = "rows",
    groups: int = 1,
) -> Shift:
    """Displacement of a linear map's output by its weight: unknowns along `channel`."""
    if not isinstance(weight, Parameter):
        algebra.forbid(weight, "a weight that is computed")
        return {}
    rows = torch.from_numpy(algebra.rows(weight, axis, groups))
    out: Shift = {key: Sector(amplitude.expand(shape), ((Fraction(1), geometry.along(rows, channel, shape)),))}
    if axis == "columns" and key[0] != "embedding":
        algebra.tokens_apart(weight)
    elif axis == "rows" and weight.name in algebra.uniform:  # tied to an embedding: all logits move alike
        tokens = torch.from_numpy(algebra.uniform[weight.name])
        out["tied", *key] = Sector(amplitude.expand(shape) + 1, (), (((Fraction(1), tokens),),))
    return out


def _biased(algebra: ShiftAlgebra, bias: Any, shape: torch.Size, channel: int) -> Shift:
    return {k: s.map(lambda t: geometry.along(t, channel, shape)) for k, s in algebra.shift(bias).items()}


def _through(algebra: ShiftAlgebra, node: fx.Node, x: Shift, channel: int, matrix: Tensor | None = None) -> Shift:
    """Displacements that a linear map carries on: opaque, the same where all that it mixes is the same.

    Only those that are the same for the whole batch and at every position survive; it takes no more to find
    the biases that a BatchNorm behind a projection makes idle. A known `matrix` (out, in) says what becomes of others.
    """
    shape = shape_of(node)
    out: Shift = {}
    for key, sector in x.items():
        if matrix is not None and (mixed := mixed_by(matrix, sector, channel)) is not None:
            out[key if key == CONSTANT else (*key, node.name)] = mixed
            continue
        flat = [t.movedim(channel, -1) for t in (sector.amplitude, *(r for _, r in sector.terms))]
        places = geometry.narrow(*flat)[0].shape[:-1].numel()
        if places == 1 and (key == CONSTANT or sector.origins):
            behind = (*sector.origins, sector.terms) if sector.terms else sector.origins
            classes = torch.arange(1, shape[channel] + 1)
            out["opaque", node.name, key] = Sector(geometry.along(classes, channel, shape), (), behind)
        else:
            let_none_pass(algebra, node, {key: sector})
    return out


@rule("linear", takes="input weight bias")
def _linear(algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any) -> Shift:
    shape, known = shape_of(node), known_numbers(algebra, node, "weight")
    out = combined(_through(algebra, node, algebra.shift(x), -1, known), _biased(algebra, bias, shape, -1), node)
    positions = torch.arange(shape[:-1].numel()).reshape(*shape[:-1], 1)
    mapped = _weighted(algebra, weight, ("linear", source_of(node)), positions, shape, -1)
    return _all(node, out, mapped, redundant_shift(algebra, node, (0, -1), (1, weight), shape))


def _all(node: fx.Node, *parts: Shift) -> Shift:
    out = parts[0]
    for part in parts[1:]:
        out = combined(out, part, node)
    return out


@rule("addmm", takes="self mat1 mat2", given="beta alpha")
def _addmm(algebra: ShiftAlgebra, node: fx.Node, bias: Any, x: Any, weight: Any) -> Shift:
    shape, given = shape_of(node), arguments(node)
    added = multiplied(expanded(algebra.shift(bias), shape), given["beta"])
    if not isinstance(weight, Parameter):
        let_none_pass(algebra, node, algebra.shift(x), algebra.shift(weight))
        return added
    out = combined(_through(algebra, node, algebra.shift(x), -1), added, node)
    positions = torch.arange(shape[0])[:, None]
    mapped = _weighted(algebra, weight, ("linear", given["mat1"].name), positions, shape, -1, "columns")
    redundant = redundant_shift(algebra, node, (1, -1), (2, weight), shape)
    return _all(node, out, multiplied(mapped, given["alpha"]), multiplied(redundant, given["alpha"]))


@rule("mm", "bmm", takes="self mat2")
@rule("matmul", takes="self other")
def _matmul(algebra: ShiftAlgebra, node: fx.Node, x: Any, y: Any) -> Shift:
    """Products of activations, or of one and a weight (in, out) at its right."""
    shape, known = shape_of(node), algebra.concrete.get(node.args[1])  # type: ignore[arg-type]
    if known is not None and known.dim() == 2:
        return _through(algebra, node, algebra.shift(x), -1, known.T)
    let_none_pass(algebra, node, algebra.shift(x))
    if isinstance(y, Parameter) and len(y.shape) == 2:
        positions = torch.arange(shape[:-1].numel()).reshape(*shape[:-1], 1)
        mapped = _weighted(algebra, y, ("linear", source_of(node)), positions, shape, -1, "columns")
        return _all(node, mapped, redundant_shift(algebra, node, (0, -1), (1, y), shape))
    return _keys(algebra, node, algebra.shift(y), shape)


def _keys(algebra: ShiftAlgebra, node: fx.Node, keys: Shift, shape: torch.Size) -> Shift:
    """q·kᵀ with every key displaced alike (a key bias): the same for all keys, which softmax ignores.

    Sums over positions (a graph's messages, attention's values) pass what has the same unknowns at all of them.
    """
    out: Shift = {}
    row = torch.arange(shape[:-1].numel()).reshape(*shape[:-1], 1).expand(shape)
    for key, sector in keys.items():
        values = [algebra.system.find(geometry.narrow(r)[0].numpy()) for _, r in sector.terms]
        if key == CONSTANT and len(shape) > 1 and all(v.shape[-1] == 1 for v in values):
            queries = torch.arange(1, shape[:-1].numel() + 1).reshape(*shape[:-1], 1)
            out["opaque", node.name, key] = Sector(queries.expand(shape), (), (sector.terms,))
        elif not sector.origins and sector.amplitude.dim() > 1 and _is_alike(algebra, sector):
            over = (sector.amplitude.dim() - 2,)
            mixed = paired(sets_along(sector.amplitude, over).expand(shape), row)
            terms = tuple((c, geometry.first_along(rows, over).expand(shape)) for c, rows in sector.terms)
            out[(*key, node.name)] = Sector(mixed, terms)
        else:
            let_none_pass(algebra, node, {key: sector})
    return out


def _is_alike(algebra: ShiftAlgebra, sector: Sector) -> bool:
    over = (sector.amplitude.dim() - 2,)
    return all(algebra.same(rows, geometry.first_along(rows, over).expand_as(rows)) for _, rows in sector.terms)


@rule("scaled_dot_product_attention", takes="query key value attn_mask", given="dropout_p is_causal scale enable_gqa")
def _attention(algebra: ShiftAlgebra, node: fx.Node, q: Any, k: Any, v: Any, mask: Any) -> Shift:
    """Keys may move together, and so may what is added to the logits of all keys."""
    given, why = arguments(node), f"not the same for all keys at {place(node)}"
    if mask is not None:
        size = shape_of(given["attn_mask"])
        algebra.ignore(algebra.shift(mask), size, (len(size) - 1,), why)
    let_none_pass(algebra, node, algebra.shift(q))
    keys = shape_of(given["key"])
    algebra.ignore(algebra.shift(k), keys, (len(keys) - 2,), why)
    let_none_pass(algebra, node, algebra.shift(v))
    return {}


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", takes="self", given="dim dtype half_to_float")
def _softmax(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    over = Reduction.of(node)
    algebra.ignore(algebra.shift(x), over.shape, over.dims, f"not the same for all of the softmax at {place(node)}")
    return {}


@rule("embedding", takes="weight", given="indices padding_idx scale_grad_by_freq sparse")
def _embedding(algebra: ShiftAlgebra, node: fx.Node, weight: Any) -> Any:
    """A linear map of one-hot tokens: each token has one unknown per channel, and so have all of them together.

    Where the gradient leaves out a padding token or weighs by frequency, nothing is known of the sum over all
    tokens; what a token exchanges with another table's is known if that has the same kind of gradient.
    """
    shape, embedding = shape_of(node), Embedding.of(node)
    positions = torch.arange(shape[:-1].numel()).reshape(*shape[:-1], 1)
    out = _weighted(algebra, weight, ("embedding", embedding), positions, shape, -1, "columns")
    if isinstance(weight, Parameter):
        alike = algebra.tokens_alike(weight)
        if not embedding.has_whole_gradient:
            algebra.system.zero(alike, "the gradient leaves out a token or weighs them")
        rows = geometry.along(torch.from_numpy(alike), -1, shape)
        out[CONSTANT] = Sector(torch.zeros((), dtype=torch.int64).expand(shape), ((Fraction(1), rows),))
    return out


@rule(*Convolution.NAMES, takes=Convolution.TAKES, given=Convolution.GIVEN)
def _conv(algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any) -> Shift:
    shape, conv, carried = shape_of(node), Convolution.of(node), algebra.shift(x)
    if conv.pads:  # the border sees less of a displacement than the inside
        let_none_pass(algebra, node, carried)
        carried = {}
    out = combined(_through(algebra, node, carried, 1), _biased(algebra, bias, shape, 1), node)
    mapped = _weighted(algebra, weight, ("convolution", source_of(node), conv), _places(shape, conv.groups), shape, 1)
    redundant = redundant_shift(algebra, node, (0, 1), (1, weight), shape) if conv.groups == 1 else {}
    if conv.pads and redundant:  # the border sees less of it
        let_none_pass(algebra, node, redundant)
        redundant = {}
    return _all(node, out, mapped, redundant)


@rule(*Convolution.TRANSPOSED, takes=Convolution.TAKES, given=f"{Convolution.GIVEN} output_padding")
def _conv_transpose(algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any) -> Shift:
    """Each position sees its own mixture of inputs and taps, the same for all outputs of a group."""
    shape, conv, carried = shape_of(node), Convolution.of(node), algebra.shift(x)
    if not conv.is_pointwise:  # not all positions see as much of a displacement
        let_none_pass(algebra, node, carried)
        carried = {}
    out = combined(_through(algebra, node, carried, 1), _biased(algebra, bias, shape, 1), node)
    key, places = ("convolution", source_of(node), conv), _places(shape, conv.groups)
    return combined(out, _weighted(algebra, weight, key, places, shape, 1, "columns", conv.groups), node)


def _places(shape: torch.Size, groups: int) -> Tensor:
    """An amplitude for each sample, position and group of output channels."""
    group = torch.arange(shape[1]).div(shape[1] // groups, rounding_mode="floor")
    places = torch.arange(shape[0] * shape[2:].numel()).reshape(shape[0], 1, *shape[2:])
    return places * groups + group.reshape(-1, *[1] * (len(shape) - 2))
