"""Means that are taken out by hand, x − mean(x), and tensors that sum to zero along their last dim."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from neuralmech.discovery.trace import operation


def centred_dims(mean: Any, x: Any = None) -> tuple[int, ...]:
    """Dims over which a node is the mean of x (of whatever it reads by default), kept with length 1; else none."""
    if not isinstance(mean, fx.Node) or operation(mean) != "mean" or len(mean.args) < 3 or not mean.args[2]:
        return ()
    if x is not None and mean.args[0] is not x:
        return ()
    rank = mean.meta["val"].dim()
    dims: Any = mean.args[1]
    return tuple(sorted(d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank))))


def is_taken_out(mean: fx.Node) -> bool:
    """Whether a mean is read only where it is subtracted from what it is the mean of."""
    return bool(centred_dims(mean)) and all(
        operation(user) == "sub" and tuple(user.args) == (mean.args[0], mean) and not user.kwargs for user in mean.users
    )


def sums_to_zero(node: Any) -> bool:
    """Whether a tensor sums to zero along its last dim whatever the parameters: LayerNorm without weight and bias.

    Multiples by what is the same along this dim, sums of such tensors and copies at other positions do, too.
    """
    if not isinstance(node, fx.Node) or node.op != "call_function" or not isinstance(node.meta["val"], torch.Tensor):
        return False
    name = operation(node)
    args: Any = node.args
    last = node.meta["val"].dim() - 1
    if name == "layer_norm":
        normalized: Any = args[1]
        return len(normalized) == 1 and not node.kwargs and all(a is None for a in args[2:4])
    if name in ("add", "sub") and not node.kwargs:
        mean_taken_out = name == "sub" and centred_dims(args[1], args[0]) == (last,)
        return mean_taken_out or all(sums_to_zero(a) and _shape(a) == _shape(node) for a in args[:2])
    if name in ("mul", "div") and not node.kwargs:
        x, factor = args if name == "div" or sums_to_zero(args[0]) else args[::-1]
        return sums_to_zero(x) and _shape(x) == _shape(node) and _is_same_along_last(factor)
    if name in ("neg", "clone", "alias", "contiguous"):
        return sums_to_zero(args[0])
    if name in ("view", "reshape", "_unsafe_view", "flatten", "expand"):
        return sums_to_zero(args[0]) and _shape(args[0])[-1] == _shape(node)[-1]
    if name in ("mean", "sum", "select", "slice"):
        dims: Any = args[1] if len(args) > 1 else None
        over = [dims] if isinstance(dims, int) else dims or [-1]  # no dims: all of them
        rank = len(_shape(args[0]))
        return rank - 1 not in [d % rank for d in over] and sums_to_zero(args[0])
    return False


def _is_same_along_last(factor: Any) -> bool:
    return isinstance(factor, (int, float)) or not _shape(factor) or _shape(factor)[-1] == 1


def _shape(node: Any) -> torch.Size:
    return node.meta["val"].shape
