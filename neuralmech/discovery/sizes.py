"""Sizes that depend on data (how many samples a mask picks): any number stands for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import SymBool, SymFloat, SymInt, Tensor, fx

STAND_IN = 3  # for each size that only data can tell


def settle_sizes(graph: fx.Graph) -> None:
    """Give every node of a traced graph whole numbers for its sizes.

    Symmetries do not depend on how many elements a mask picks, so each such size is `STAND_IN`.
    """
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, (list, tuple)):
            node.meta["val"] = type(value)(_settled(v) for v in value)
        elif value is not None:
            node.meta["val"] = _settled(value)


def _settled(value: Any) -> Any:
    if isinstance(value, Tensor) and any(isinstance(n, SymInt) for n in value.shape):
        return torch.empty([_number(n) for n in value.shape], dtype=value.dtype, device="meta")
    return _number(value)


def _number(value: Any) -> Any:
    if not isinstance(value, (SymInt, SymFloat, SymBool)):
        return value
    settled = value.node.expr.subs(dict.fromkeys(value.node.expr.free_symbols, STAND_IN))
    if isinstance(value, SymInt):
        return int(settled)
    return float(settled) if isinstance(value, SymFloat) else bool(settled)
