"""How relations among channels pass every operation; one that is not here ends them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves, tree_map

from neuralmech.discovery import geometry
from neuralmech.discovery.centring import centred_dims
from neuralmech.discovery.lowering import ACTIVATIONS
from neuralmech.discovery.relations import (
    ByDim,
    Normals,
    Operand,
    Relations,
    beside,
    carried,
    classes,
    constant_along,
    equal_channels,
    mapped,
    none,
    rule,
    sum_is,
    told_dims,
    without_constant,
)
from neuralmech.discovery.trace import operation

Known = Mapping[fx.Node, Any]
PICKS = ("index", "index_select", "gather", "_unsafe_index", "repeat_interleave")
PADDINGS = ("pad", "constant_pad_nd")
WIDEST = 1 << 10  # channels of what is moved; where there are more, no relation is told
FILLED = 0  # number of what a movement puts in


@rule("getitem")
def _part(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    parts = relations.parts.get(node.all_input_nodes[0], ())
    return parts[node.args[1]] if node.args[1] < len(parts) else {}  # type: ignore[index,operator,return-value]


@rule(*geometry.MOVEMENT, *geometry.ASSIGNMENTS, *PICKS)
def _moved(relations: Relations, node: fx.Node, known: Known) -> Sequence[ByDim] | ByDim:
    many = isinstance(node.args[0], (list, tuple))
    count = 2 if operation(node) in geometry.ASSIGNMENTS else 1
    moved: Any = node.args[0] if many else node.args[:count]
    is_known = [x in known for x in moved]
    if all(is_known) or not (any(is_known) or any(x in relations.of for x in moved) or _repeats(node)):
        return {}
    several = isinstance(node.meta["val"], (list, tuple))
    found: list[ByDim] = [{} for _ in (node.meta["val"] if several else [node])]
    for dim in sorted({d for x in moved for d in (*relations.of.get(x, {}), *told_dims(x.meta["val"].shape))}):
        if any(dim >= x.meta["val"].dim() for x in moved):
            continue
        operands = [relations.operand(x, x.meta["val"].shape, dim, known) for x in dict.fromkeys(moved)]
        numbers, places = _numbered(moved, dim)
        numbers, places = (_run(node, part, known, many=many) for part in (numbers, places))
        for into, out, where in zip(found, numbers, places, strict=False):  # none if it moves by unknown numbers
            for d in (d for d in told_dims(out.shape) if out.shape[d] <= WIDEST):
                at = constant_along(out, out.shape, d)
                one = where.amax(d, keepdim=True)
                if at is not None and bool(((where == one) | (out == FILLED)).all()):
                    into.setdefault(d, _picked(at.astype(np.int64), operands, _filling(node)))  # type: ignore[arg-type]
    return found if several else found[0]


def _numbered(moved: Sequence[fx.Node], dim: int) -> tuple[list[Tensor], list[Tensor]]:
    """Number the channels of some tensors along a dim, all tensors' from 1 on, and the places where channels stand."""
    numbers, places, first, firsts = [], [], 1, {}
    for x in moved:
        shape = x.meta["val"].shape
        along = [n if d == dim else 1 for d, n in enumerate(shape)]
        others = [1 if d == dim else n for d, n in enumerate(shape)]
        start = firsts.setdefault(x, first)
        first = max(first, start + shape[dim])
        numbers.append(torch.arange(start, start + shape[dim]).reshape(along).expand(shape))
        places.append(torch.arange(1, math.prod(others) + 1).reshape(others).expand(shape))
    return numbers, places


def _filling(node: fx.Node) -> float:
    """What a padding puts in, if that is a constant."""
    if operation(node) not in PADDINGS:
        return 0.0
    given = node.kwargs.get("value", next((a for a in node.args[2:] if isinstance(a, (int, float))), 0))
    return float(given or 0)  # type: ignore[arg-type]


def _repeats(node: fx.Node) -> bool:
    """Whether a movement may make channels equal or constant that were not."""
    name = operation(node)
    if name in ("expand", "broadcast_to"):
        source = node.args[0].meta["val"].shape  # type: ignore[union-attr]
        shape = node.meta["val"].shape
        new = len(shape) - len(source)
        return any(d >= new and source[d - new] < shape[d] for d in told_dims(shape))
    if name in ("cat", "stack"):
        return len(set(node.args[0])) < len(node.args[0])  # type: ignore[arg-type]
    return name in ("repeat", *PADDINGS, *PICKS)


def _run(node: fx.Node, numbers: list[Tensor], known: Known, *, many: bool) -> Sequence[Tensor]:
    count = 0 if many else len(numbers)
    rest = (node.args[max(count, 1) :], dict(node.kwargs))
    given: Any = tree_map(lambda v: known.get(v, v) if isinstance(v, fx.Node) else v, rest)
    if any(isinstance(v, fx.Node) for v in tree_leaves(given)):
        return ()
    args = ((numbers,) if many else tuple(numbers)) + tuple(given[0])
    if operation(node) in PICKS:
        return [node.target(*args, **given[1])]  # type: ignore[operator]
    result = geometry.move(node, args, given[1])
    return result if isinstance(result, tuple) else (result,)


def _picked(at: np.ndarray, operands: Sequence[Operand], filling: float) -> Normals:
    """Relations of channels that are picked, by numbers from 1 on for all operands'; `FILLED` is the filling."""
    first = np.cumsum([0, *(o.columns for o in operands)])
    columns = np.concatenate([[-1], *(np.where(o.at < 0, -1, o.at + f) for o, f in zip(operands, first, strict=False))])
    added = np.concatenate([[filling], *(o.added for o in operands)])
    picked = Operand(int(first[-1]), columns[at], added[at], beside([o.normals for o in operands]))
    return carried([(picked, 1.0)], at.size)


@rule("add", "sub", "rsub", "neg")
def _sum(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    name, args, shape = operation(node), node.args, node.meta["val"].shape
    alpha: Any = node.kwargs.get("alpha", 1)
    factors = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1), "neg": (-1,)}[name]
    out: ByDim = {}
    for dim in told_dims(shape):
        operands = [relations.operand(x, shape, dim, known) for x in args[: len(factors)]]
        if any(o is None for o in operands):
            continue
        if name == "sub" and alpha == 1 and centred_dims(args[1], args[0]) == (dim,):
            out[dim] = _centred(operands[0], shape[dim])  # type: ignore[arg-type]
        elif not any(o.is_free for o in operands):  # type: ignore[union-attr]
            out[dim] = carried(zip(operands, factors, strict=True), shape[dim])  # type: ignore[arg-type]
    return out


def _centred(x: Operand, channels: int) -> Normals:
    """What has its mean taken out sums to zero, and keeps the relations that do not see the mean."""
    kept = none(channels) if x.is_free else carried([(x, 1.0), (Operand.of_one(channels), -1.0)], channels)
    return sparse.csr_array(sparse.vstack([sum_is(0.0, channels), kept]))


@rule("mul", "div")
def _product(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    if node.kwargs:
        return {}
    shape, out = node.meta["val"].shape, {}
    for dim in told_dims(shape):
        x, y = (relations.operand(a, shape, dim, known) for a in node.args[:2])
        if x is None or y is None:
            continue
        if operation(node) == "mul" and x.columns < y.columns:
            x, y = y, x
        if not y.columns:
            out[dim] = _times(x, y.added, inverse=operation(node) == "div")
        elif y.columns == 1 and not x.is_free and x.columns:
            out[dim] = carried([(x._replace(normals=without_constant(x.normals)), 1.0)], shape[dim])
        elif not x.is_free and not y.is_free:
            mine, others = classes(x)[0], classes(y)[0]
            out[dim] = equal_channels(np.unique(np.stack([mine, others]), axis=1, return_inverse=True)[1].ravel(), {})
    return out


def _times(x: Operand, numbers: np.ndarray, *, inverse: bool) -> Normals:
    """Relations of what is multiplied by known numbers, one for each channel; a zero leaves a zero."""
    if (x.is_free and numbers.all()) or (inverse and not numbers.all()):
        return none(numbers.size)
    numbers = 1 / numbers if inverse else numbers
    there = np.flatnonzero((x.at >= 0) & (numbers != 0))
    matrix = sparse.coo_array((numbers[there], (there, x.at[there])), shape=(numbers.size, x.columns))
    return mapped(matrix, x.added * numbers, x.normals)


@rule(*ACTIVATIONS, "relu", "leaky_relu", "abs", "exp", "erf", "sin", "cos", "square", "sqrt", "rsqrt", "pow", "clamp")
def _pointwise(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    x = node.args[0]
    if x not in relations.of or any(isinstance(a, fx.Node) for a in (*node.args[1:], *node.kwargs.values())):
        return {}
    out = {}
    for dim, normals in relations.of[x].items():  # type: ignore[index]
        numbers, constant = classes(Operand.of_channels(normals))
        new = {
            n: float(node.target(torch.tensor(v, dtype=torch.float64), *node.args[1:], **node.kwargs))  # type: ignore[operator]
            for n, v in constant.items()
        }
        out[dim] = equal_channels(numbers, new)
    return out


@rule("linear", "mm", "matmul")
def _linear(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    """h = Wx + b: a constant W maps the relations of x, and those among the rows of any W are among those of h."""
    x, weight = node.args[:2]
    if len(weight.meta["val"].shape) != 2:  # type: ignore[union-attr]
        return {}
    last, shape = node.meta["val"].dim() - 1, node.meta["val"].shape
    of_rows = 0 if operation(node) == "linear" else 1
    matrix = known.get(weight)  # type: ignore[arg-type]
    if matrix is not None:
        if matrix.numel() > 1 << 16:
            return {}
        rows = matrix if of_rows == 0 else matrix.T
        mine = relations.operand(x, x.meta["val"].shape, x.meta["val"].dim() - 1, known)  # type: ignore[union-attr]
        product = mapped(sparse.coo_array(rows.double().numpy()), np.zeros(len(rows)), mine.normals)  # type: ignore[union-attr]
    else:
        found = relations.along(weight, of_rows)
        product = none(shape[last]) if found is None else without_constant(found)
    bias = node.args[2] if len(node.args) > 2 else None
    if bias is None:
        return {last: product}
    operand, added = Operand.of_channels(product), relations.operand(bias, shape, last, known)
    if operand.is_free or added is None or added.is_free:
        return {}
    return {last: carried([(operand, 1), (added, 1)], shape[last])}


@rule("avg_pool1d", "adaptive_avg_pool1d", "upsample_nearest1d", "upsample_linear1d", "_upsample_nearest_exact1d")
def _resized(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    """What maps the last dim alone, linearly: its matrix is what it makes of a matrix of ones."""
    x: Any = node.args[0]
    rank, channels = x.meta["val"].dim(), x.meta["val"].shape[-1]
    if channels > 1 << 8:
        return {}
    unit = torch.eye(channels, dtype=torch.float64)
    matrix = node.target(unit if rank == 2 else unit[:, None], *node.args[1:], **node.kwargs)  # type: ignore[operator]
    matrix = matrix.reshape(channels, -1).T
    normals = relations.of.get(x, {}).get(rank - 1, none(channels))
    return {rank - 1: mapped(sparse.coo_array(matrix.numpy()), np.zeros(len(matrix)), normals)}


@rule("mean", "sum")
def _reduced(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    """Along other dims than those that are summed over: a sum has a constant as often."""
    x: Any = node.args[0]
    if x not in relations.of:
        return {}
    shape, out = x.meta["val"].shape, {}
    over = geometry.dims_of(node.args[1] if len(node.args) > 1 else None, len(shape))  # type: ignore[arg-type]
    keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    times = int(np.prod([shape[d] for d in over])) if operation(node) == "sum" else 1
    for dim, normals in relations.of[x].items():
        if dim not in over:
            scaled = sparse.diags_array(np.append(np.ones(shape[dim]), float(times)))
            out[dim if keep else dim - sum(d < dim for d in over)] = sparse.csr_array(normals @ scaled)
    return out


@rule("layer_norm")
def _layer_norm(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    """Without weight and bias it sums to zero."""
    shape, normalized = node.meta["val"].shape, node.args[1]
    if len(normalized) > 1 or any(a is not None for a in node.args[2:4]) or node.kwargs:  # type: ignore[arg-type]
        return {}
    return {len(shape) - 1: sum_is(0.0, shape[-1])}


@rule("softmax", "_softmax")
def _softmax(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    """Sums to one."""
    shape, dim = node.meta["val"].shape, node.args[1] % node.meta["val"].dim()  # type: ignore[operator]
    return {dim: sum_is(1.0, shape[dim])} if dim in told_dims(shape) else {}
