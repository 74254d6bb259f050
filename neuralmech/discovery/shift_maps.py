"""How shifts pass what mixes channels by a weight: linear maps, convolutions, products, attention, embeddings."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.engine import Parameter
from neuralmech.discovery.relations import Normals, none
from neuralmech.discovery.shift import CONSTANT, Key, Redundancy, Sector, Shift, ShiftAlgebra, first_along, rule
from neuralmech.discovery.shift_values import (
    combined,
    let_none_pass,
    mixed_by,
    multiplied,
    paired,
    sets_along,
    source_of,
)
from neuralmech.discovery.trace import operation, place
from neuralmech.symmetry.family import Axis

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
MANY = 1 << 22  # numbers in displacements along relations of a weight; where there are more, none is told


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
    out: Shift = {key: Sector(amplitude.expand(shape), ((Fraction(1), _along(rows, channel, shape)),))}
    if axis == "columns" and key[0] != "embedding":
        algebra.tokens_apart(weight)
    elif axis == "rows" and weight.name in algebra.uniform:  # tied to an embedding: all logits move alike
        tokens = torch.from_numpy(algebra.uniform[weight.name])
        out["tied", *key] = Sector(amplitude.expand(shape) + 1, (), (((Fraction(1), tokens),),))
    return out


def _along(values: Tensor, channel: int, shape: torch.Size) -> Tensor:
    """Broadcast a vector along one dimension of `shape`."""
    axis = [1] * len(shape)
    axis[channel] = shape[channel]
    return values.reshape(axis).expand(shape)


def _biased(algebra: ShiftAlgebra, bias: Any, shape: torch.Size, channel: int) -> Shift:
    return {k: s.map(lambda t: _along(t, channel, shape)) for k, s in algebra.shift(bias).items()}


def _through(algebra: ShiftAlgebra, node: fx.Node, x: Shift, channel: int, matrix: Tensor | None = None) -> Shift:
    """Displacements that a linear map carries on: opaque, the same where all that it mixes is the same.

    Only those that are the same for the whole batch and at every position survive; it takes no more to find
    the biases that a BatchNorm behind a projection makes idle. A known `matrix` (out, in) says what becomes of others.
    """
    shape = node.meta["val"].shape
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
            out["opaque", node.name, key] = Sector(_along(classes, channel, shape), (), behind)
        else:
            let_none_pass(algebra, node, {key: sector})
    return out


@rule("linear", takes="input weight bias")
def _linear(algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None) -> Shift:
    shape = node.meta["val"].shape
    known = algebra.concrete.get(node.args[1])  # type: ignore[arg-type]
    out = combined(_through(algebra, node, algebra.shift(x), -1, known), _biased(algebra, bias, shape, -1), node)
    positions = torch.arange(shape[:-1].numel()).reshape(*shape[:-1], 1)
    mapped = _weighted(algebra, weight, ("linear", source_of(node)), positions, shape, -1)
    return _all(node, out, mapped, _redundant(algebra, node, (0, -1), (1, weight), shape))


def _all(node: fx.Node, *parts: Shift) -> Shift:
    out = parts[0]
    for part in parts[1:]:
        out = combined(out, part, node)
    return out


def _redundant(
    algebra: ShiftAlgebra, node: fx.Node, read: tuple[int, int], weight: tuple[int, Any], shape: torch.Size
) -> Shift:
    """Displacement of a map's output by rows of its weight that move along what the input has no component along.

    `read` is the argument that the weight reads and its dim of channels, `weight` the argument that the weight is and
    the weight, (O, C, taps…) or, at the right of a product, (C, O).
    """
    raw: Any = node.args[weight[0]]
    parameter, x = weight[1], node.args[read[0]]
    if not isinstance(parameter, Parameter) or parameter.name in algebra.frozen:
        return {}
    normals = algebra.relations.along(x, read[1])
    found = algebra.redundant.get(parameter.name)
    if found is None:
        is_right = operation(node) not in ("linear", *CONVOLUTIONS)
        found = algebra.redundant[parameter.name] = _redundancy(
            algebra, parameter.shape, normals, raw, is_right=is_right
        )
    else:
        rows = [] if normals is None else [row.tobytes() for row in normals.toarray()]
        missing = np.array([row.tobytes() not in rows for row in found.normals.toarray()], dtype=bool)
        algebra.system.zero(found.ids[missing], "read something else, too")
    found.uses += raw is not x  # of what reads itself nothing is told
    channel = 1 if operation(node) in CONVOLUTIONS else -1
    terms = []
    for ids, r in zip(found.ids, found.normals[:, -1:].toarray().ravel().tolist(), strict=True):
        terms += [(Fraction(-r), _along(torch.from_numpy(tap.copy()), channel, shape)) for tap in ids.T if r]
    return {CONSTANT: Sector(torch.zeros((), dtype=torch.int64).expand(shape), tuple(terms))} if terms else {}


def _redundancy(
    algebra: ShiftAlgebra, shape: torch.Size, normals: Normals | None, weight: fx.Node, *, is_right: bool
) -> Redundancy:
    """Unknowns for a weight's rows along each relation among the channels that it reads."""
    outputs, channels, taps = (shape[1], shape[0], 1) if is_right else (shape[0], shape[1], shape[2:].numel())
    told = none(channels) if normals is None or normals.nnz * outputs * taps > MANY else normals
    size = (told.shape[0], outputs, taps)
    return Redundancy(told, algebra.system.new(math.prod(size)).reshape(size), weight)


@rule("addmm", takes="self mat1 mat2", given="beta alpha")
def _addmm(
    algebra: ShiftAlgebra, node: fx.Node, bias: Any, x: Any, weight: Any, *, beta: float = 1, alpha: float = 1
) -> Shift:
    shape = node.meta["val"].shape
    added = multiplied({k: s.map(lambda t: t.expand(shape)) for k, s in algebra.shift(bias).items()}, beta)
    if not isinstance(weight, Parameter):
        let_none_pass(algebra, node, algebra.shift(x), algebra.shift(weight))
        return added
    out = combined(_through(algebra, node, algebra.shift(x), -1), added, node)
    positions = torch.arange(shape[0])[:, None]
    source = node.all_input_nodes[1].name
    mapped = _weighted(algebra, weight, ("linear", source), positions, shape, -1, "columns")
    redundant = _redundant(algebra, node, (1, -1), (2, weight), shape)
    return _all(node, out, multiplied(mapped, alpha), multiplied(redundant, alpha))


@rule("mm", "bmm", takes="self mat2")
@rule("matmul", takes="self other")
def _matmul(algebra: ShiftAlgebra, node: fx.Node, x: Any, y: Any) -> Shift:
    """Products of activations, or of one and a weight (in, out) at its right."""
    shape, known = node.meta["val"].shape, algebra.concrete.get(node.args[1])  # type: ignore[arg-type]
    if known is not None and known.dim() == 2:
        return _through(algebra, node, algebra.shift(x), -1, known.T)
    let_none_pass(algebra, node, algebra.shift(x))
    if isinstance(y, Parameter) and len(y.shape) == 2:
        positions = torch.arange(shape[:-1].numel()).reshape(*shape[:-1], 1)
        mapped = _weighted(algebra, y, ("linear", source_of(node)), positions, shape, -1, "columns")
        return _all(node, mapped, _redundant(algebra, node, (0, -1), (1, y), shape))
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
            terms = tuple((c, first_along(rows, over).expand(shape)) for c, rows in sector.terms)
            out[(*key, node.name)] = Sector(mixed, terms)
        else:
            let_none_pass(algebra, node, {key: sector})
    return out


def _is_alike(algebra: ShiftAlgebra, sector: Sector) -> bool:
    over = (sector.amplitude.dim() - 2,)
    return all(algebra.same(rows, first_along(rows, over).expand_as(rows)) for _, rows in sector.terms)


@rule("scaled_dot_product_attention", takes="query key value attn_mask", given="dropout_p is_causal scale enable_gqa")
def _attention(
    algebra: ShiftAlgebra, node: fx.Node, q: Any, k: Any, v: Any, mask: Any = None, *_: Any, **named: Any
) -> Shift:
    """Keys may move together, and so may what is added to the logits of all keys."""
    mask = named.get("attn_mask", mask)
    if mask is not None:
        raw: Any = node.kwargs.get("attn_mask", node.args[3] if len(node.args) > 3 else None)
        size = raw.meta["val"].shape
        algebra.ignore(algebra.shift(mask), size, (len(size) - 1,), f"not the same for all keys at {place(node)}")
    let_none_pass(algebra, node, algebra.shift(q))
    keys = node.args[1].meta["val"].shape  # type: ignore[union-attr]
    algebra.ignore(algebra.shift(k), keys, (len(keys) - 2,), f"not the same for all keys at {place(node)}")
    let_none_pass(algebra, node, algebra.shift(v))
    return {}


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", takes="self", given="dim dtype half_to_float")
def _softmax(algebra: ShiftAlgebra, node: fx.Node, x: Any, dim: int, *_: Any, **__: Any) -> Shift:
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    algebra.ignore(
        algebra.shift(x), shape, (dim % len(shape),), f"not the same for all of the softmax at {place(node)}"
    )
    return {}


@rule("embedding", takes="weight", given="indices padding_idx scale_grad_by_freq sparse")
def _embedding(algebra: ShiftAlgebra, node: fx.Node, weight: Any, indices: Any, *options: Any) -> Any:
    """A linear map of one-hot tokens: each token has one unknown per channel, and so have all of them together.

    Where the gradient leaves out a padding token or weighs by frequency, nothing is known of the sum over all
    tokens; what a token exchanges with another table's is known if that has the same kind of gradient.
    """
    shape = node.meta["val"].shape
    positions = torch.arange(shape[:-1].numel()).reshape(*shape[:-1], 1)
    kind = geometry.whose_gradient(*options)
    out = _weighted(algebra, weight, ("embedding", str(node.args[1]), kind), positions, shape, -1, "columns")
    if isinstance(weight, Parameter):
        alike = algebra.tokens_alike(weight)
        if kind != geometry.WHOLE:
            algebra.system.zero(alike, "the gradient leaves out a token or weighs them")
        rows = _along(torch.from_numpy(alike), -1, shape)
        out[CONSTANT] = Sector(torch.zeros((), dtype=torch.int64).expand(shape), ((Fraction(1), rows),))
    return out


@rule(*CONVOLUTIONS, takes="input weight bias", given="stride padding dilation groups")
def _conv(
    algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None, *options: Any, **more: Any
) -> Shift:
    shape, kernel = node.meta["val"].shape, node.args[1].meta["val"].shape  # type: ignore[union-attr]
    width = kernel[2:]
    chosen = geometry.convolution_options(options, more)
    padding, groups = chosen.get("padding", 0), chosen.get("groups", 1)
    padded = padding == "same" if isinstance(padding, str) else any(geometry.spread(padding, len(width)))
    carried = algebra.shift(x)
    if padded:  # the border sees less of a displacement than the inside
        let_none_pass(algebra, node, carried)
        carried = {}
    out = combined(_through(algebra, node, carried, 1), _biased(algebra, bias, shape, 1), node)
    key = ("conv", source_of(node), str(options), str(more), tuple(kernel[1:]))
    mapped = _weighted(algebra, weight, key, _places(shape, groups), shape, 1)
    redundant = _redundant(algebra, node, (0, 1), (1, weight), shape) if groups == 1 else {}
    if padded and redundant:  # the border sees less of it
        let_none_pass(algebra, node, redundant)
        redundant = {}
    return _all(node, out, mapped, redundant)


@rule(
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    takes="input weight bias",
    given="stride padding dilation groups output_padding",
)
def _conv_transpose(
    algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None, *options: Any, **more: Any
) -> Shift:
    """Each position sees its own mixture of inputs and taps, the same for all outputs of a group."""
    shape, kernel = node.meta["val"].shape, node.args[1].meta["val"].shape  # type: ignore[union-attr]
    chosen = geometry.convolution_options(options, more, transposed=True)
    carried, groups = algebra.shift(x), chosen.get("groups", 1)
    if kernel[2:].numel() > 1 or chosen.keys() - {"groups"}:  # not all positions see as much of a displacement
        let_none_pass(algebra, node, carried)
        carried = {}
    out = combined(_through(algebra, node, carried, 1), _biased(algebra, bias, shape, 1), node)
    key = ("transposed", source_of(node), str(options), str(more), tuple(kernel[2:]))
    return combined(out, _weighted(algebra, weight, key, _places(shape, groups), shape, 1, "columns", groups), node)


def _places(shape: torch.Size, groups: int) -> Tensor:
    """An amplitude for each sample, position and group of output channels."""
    group = torch.arange(shape[1]).div(shape[1] // groups, rounding_mode="floor")
    places = torch.arange(shape[0] * shape[2:].numel()).reshape(shape[0], 1, *shape[2:])
    return places * groups + group.reshape(-1, *[1] * (len(shape) - 2))
