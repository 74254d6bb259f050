"""How mixing of channels passes what moves, adds, scales and averages them.

An operation without a rule forbids mixing; that is no loss where it is nonlinear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.distinct import distinct_pairs
from neuralmech.discovery.engine import Parameter, barrier, constants
from neuralmech.discovery.mixing import MixingAlgebra, Vectors, constant_along, rule
from neuralmech.discovery.movements import ASSIGNMENTS, MOVED, MOVEMENT, MOVES, PADDINGS, move, moved_nodes
from neuralmech.discovery.operations import Pool, Reduction
from neuralmech.discovery.schema import shape_of
from neuralmech.discovery.trace import operation


@rule(*(name for name in MOVEMENT if name not in PADDINGS), *ASSIGNMENTS, takes=MOVED, given=MOVES)
def _move(algebra: MixingAlgebra, node: fx.Node, *values: Any) -> Any:
    given = values[0] if isinstance(values[0], (list, tuple)) else values[: len(moved_nodes(node))]
    operands = [algebra.value(v) for v in given]
    moved = move(node, [v.channels for v in operands])
    if isinstance(moved, tuple):
        histories = lambda: move(node, [v.history for v in operands])  # noqa: E731
        return tuple(Vectors(c, lambda i=i: histories()[i]) for i, c in enumerate(moved))
    return Vectors(moved, lambda: move(node, [v.history for v in operands]))


@rule("zero", takes="self")
def _zero(algebra: MixingAlgebra, node: fx.Node, x: Any) -> Vectors:
    """``x.zero_()`` reads nothing of x."""
    return constants(node, algebra)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Vectors, Parameter))


@rule("add", "sub", "rsub", takes="self other", given="alpha")
def _sum(algebra: MixingAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    if not _is_tensor(x) or not _is_tensor(y):  # a number added to a channel
        return barrier(algebra, node, x, y)
    return added(algebra, algebra.value(x), algebra.value(y))


def added(algebra: MixingAlgebra, x: Vectors, y: Vectors) -> Vectors:
    """Summands have the same channels; which stands on which side, and with what, is part of the history."""
    shape = torch.broadcast_shapes(x.shape, y.shape)
    a, b = (t.broadcast_to(shape) for t in (x.channels, y.channels))
    left, right = geometry.narrow(a)[0], geometry.narrow(b)[0]
    algebra.unify(*np.broadcast_arrays(left.numpy(), right.numpy()))
    if not algebra.system.find(left.numpy()).any():
        return algebra.constant(shape)
    history = algebra.combined(x.history.broadcast_to(shape), y.history.broadcast_to(shape))
    for side, ids in enumerate((a, b)):
        _tell_places(algebra, ids, history, side)
    return Vectors(a, lambda: history)


def _tell_places(algebra: MixingAlgebra, ids: Tensor, history: Tensor, side: int) -> None:
    """Token of a raw id on one side of a sum: the set of histories it stands at."""
    kept = (geometry.narrow(ids)[0], geometry.narrow(history)[0])
    if all(1 in sizes for sizes in zip(*(t.shape for t in kept), strict=True)):  # each id at every history
        raw = np.unique(kept[0].numpy())
        algebra.tell(raw, np.full(raw.size, algebra.labels(torch.zeros(2, 1, dtype=torch.int64))[0]))
        return
    raw, at = distinct_pairs(*(t.reshape(-1).numpy() for t in torch.broadcast_tensors(*kept)))
    starts = np.flatnonzero(np.diff(raw, prepend=-1))
    seen: dict[bytes, int] = {}
    places, width = at.tobytes(), at.itemsize  # np.split takes longer than all the rest
    ends = np.append(starts, at.size)[1:]
    tokens = [
        seen.setdefault(places[width * start : width * end], len(seen))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    first = algebra.labels(torch.zeros(len(seen) + 1, 1, dtype=torch.int64))[0]
    algebra.tell(raw[starts], np.array(tokens) + first)


@rule("neg", takes="self")
def _negative(algebra: MixingAlgebra, node: fx.Node, x: Any) -> Vectors:
    vectors = algebra.value(x)
    return Vectors(vectors.channels, lambda: algebra.combined(vectors.history))


@rule("mul", "div", takes="self other")
def _scaled(algebra: MixingAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    """A factor that no mixing touches; where it differs between channels, so do their histories."""
    name = operation(node)
    left, right = algebra.fixed(x) if _other(x, y) else algebra.value(x), algebra.fixed(y)
    if name == "mul" and algebra.is_constant(left):
        left, right = right, left
    if not algebra.is_constant(right):
        return barrier(algebra, node, left, right)
    shape = torch.broadcast_shapes(left.shape, right.shape)
    return Vectors(
        left.channels.broadcast_to(shape),
        lambda: algebra.combined(left.history.broadcast_to(shape), right.history.broadcast_to(shape)),
    )


def _other(x: Any, y: Any) -> bool:
    """Whether x, a parameter, multiplies vectors."""
    return isinstance(x, Parameter) and isinstance(y, Vectors)


@rule("mean", "sum", takes="self", given="dim keepdim dtype")
def _total(algebra: MixingAlgebra, node: fx.Node, x: Any) -> Any:
    vectors, over, shape = algebra.value(x), Reduction.of(node).dims, shape_of(node)
    if not constant_along(vectors.channels, over):
        return barrier(algebra, node, vectors)
    kept = [d for d in range(len(vectors.shape)) if d not in over]

    def history() -> Tensor:
        rows = vectors.history.permute(*kept, *over).reshape(shape.numel(), -1)
        return torch.from_numpy(algebra.labels(rows)).reshape(shape)

    first = geometry.first_along(vectors.channels, over)
    return Vectors(first.permute(*kept, *over).reshape(shape), history)


@rule(*Pool.MEANS, takes="self", given="kernel_size stride padding ceil_mode count_include_pad divisor_override")
@rule(*Pool.ADAPTIVE_MEANS, takes="self", given="output_size")
def _average(algebra: MixingAlgebra, node: fx.Node, x: Any) -> Any:
    """Mixes the positions of each channel, of all channels alike."""
    vectors, shape = algebra.value(x), shape_of(node)
    over = tuple(range(2, len(vectors.shape)))
    if len(over) != Pool.of(node).rank or not constant_along(vectors.channels, over):
        return barrier(algebra, node, vectors)
    place = torch.arange(shape[2:].numel()).reshape(1, 1, *shape[2:])

    def history() -> Tensor:
        maps = torch.from_numpy(algebra.labels(vectors.history.reshape(shape[0] * shape[1], -1)))
        return algebra.combined(maps.reshape(*shape[:2], *(1,) * len(over)).expand(shape), place.expand(shape))

    return Vectors(vectors.channels[(..., *(slice(0, 1),) * len(over))].expand(shape), history)
