"""How relations among channels pass every operation; one that is not here ends them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import fx

from neuralmech.discovery.centring import centred_dims
from neuralmech.discovery.lowering import ACTIVATIONS
from neuralmech.discovery.operations import Reduction
from neuralmech.discovery.relations import (
    ByDim,
    Known,
    Normals,
    Operand,
    Relations,
    carried,
    classes,
    equal_channels,
    mapped,
    none,
    rule,
    sum_is,
    told_dims,
    without_constant,
)
from neuralmech.discovery.schema import arguments, shape_of
from neuralmech.discovery.trace import operation


@rule("add", "sub", "rsub", "neg")
def _sum(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    name, args, shape = operation(node), node.args, shape_of(node)
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
    shape, out = shape_of(node), {}
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
    last, shape = node.meta["val"].dim() - 1, shape_of(node)
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
    taken, out = Reduction.of(node), {}
    times = float(taken.count if operation(node) == "sum" else 1)
    for dim, normals in relations.of[x].items():
        if dim not in taken.dims:
            scaled = sparse.diags_array(np.append(np.ones(taken.shape[dim]), times))
            out[taken.dim_after(dim)] = sparse.csr_array(normals @ scaled)
    return out


@rule("layer_norm")
def _layer_norm(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    """Without weight and bias it sums to zero."""
    shape, given = shape_of(node), arguments(node)
    if len(given["normalized_shape"]) > 1 or given["weight"] is not None or given["bias"] is not None:
        return {}
    return {len(shape) - 1: sum_is(0.0, shape[-1])}


@rule("softmax", "_softmax")
def _softmax(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    """Sums to one."""
    shape, (dim,) = shape_of(node), Reduction.of(node).dims
    return {dim: sum_is(1.0, shape[dim])} if dim in told_dims(shape) else {}
