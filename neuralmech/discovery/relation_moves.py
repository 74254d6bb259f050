"""How relations among channels pass what moves, picks, repeats and pads channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.discovery.movements import ASSIGNMENTS, MOVEMENT, PADDINGS, Padding, move, moved_nodes
from neuralmech.discovery.relations import (
    ByDim,
    Known,
    Normals,
    Operand,
    Relations,
    beside,
    carried,
    constant_along,
    rule,
    told_dims,
)
from neuralmech.discovery.schema import shape_of
from neuralmech.discovery.trace import operation

PICKS = ("index", "index_select", "gather", "_unsafe_index", "repeat_interleave")
WIDEST = 1 << 10  # channels of what is moved; where there are more, no relation is told
FILLED = 0  # number of what a movement puts in


@rule("getitem")
def _part(relations: Relations, node: fx.Node, known: Known) -> ByDim:
    parts = relations.parts.get(node.all_input_nodes[0], ())
    return parts[node.args[1]] if node.args[1] < len(parts) else {}  # type: ignore[index,operator,return-value]


@rule(*MOVEMENT, *ASSIGNMENTS, *PICKS)
def _moved(relations: Relations, node: fx.Node, known: Known) -> Sequence[ByDim] | ByDim:
    moved = moved_nodes(node)
    is_known = [x in known for x in moved]
    if all(is_known) or not (any(is_known) or any(x in relations.of for x in moved) or _repeats(node)):
        return {}
    several = isinstance(node.meta["val"], (list, tuple))
    found: list[ByDim] = [{} for _ in (node.meta["val"] if several else [node])]
    for dim in sorted({d for x in moved for d in (*relations.of.get(x, {}), *told_dims(shape_of(x)))}):
        if any(dim >= x.meta["val"].dim() for x in moved):
            continue
        operands = [relations.operand(x, shape_of(x), dim, known) for x in dict.fromkeys(moved)]
        numbers, places = _numbered(moved, dim)
        numbers, places = (_run(node, part, known) for part in (numbers, places))
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
    return float(Padding.of(node).value) if operation(node) in PADDINGS else 0.0


def _repeats(node: fx.Node) -> bool:
    """Whether a movement may make channels equal or constant that were not."""
    name = operation(node)
    if name in ("expand", "broadcast_to"):
        source, shape = shape_of(node.args[0]), shape_of(node)
        new = len(shape) - len(source)
        return any(d >= new and source[d - new] < shape[d] for d in told_dims(shape))
    if name in ("cat", "stack"):
        moved = moved_nodes(node)
        return len(set(moved)) < len(moved)
    return name in ("repeat", *PADDINGS, *PICKS)


def _run(node: fx.Node, numbers: list[Tensor], known: Known) -> Sequence[Tensor]:
    """Move numbers as a node does; nothing if it does so by numbers that are not known."""
    moved = moved_nodes(node)
    if any(n not in known for n in node.all_input_nodes if n not in moved):
        return ()
    result = move(node, numbers, known)
    return result if isinstance(result, tuple) else (result,)


def _picked(at: np.ndarray, operands: Sequence[Operand], filling: float) -> Normals:
    """Relations of channels that are picked, by numbers from 1 on for all operands'; `FILLED` is the filling."""
    first = np.cumsum([0, *(o.columns for o in operands)])
    columns = np.concatenate([[-1], *(np.where(o.at < 0, -1, o.at + f) for o, f in zip(operands, first, strict=False))])
    added = np.concatenate([[filling], *(o.added for o in operands)])
    picked = Operand(int(first[-1]), columns[at], added[at], beside([o.normals for o in operands]))
    return carried([(picked, 1.0)], at.size)
