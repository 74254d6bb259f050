"""Means that are taken out by hand, x − mean(x)."""

from __future__ import annotations

from typing import Any

from torch import fx

from neuralmech.discovery.operations import Reduction
from neuralmech.discovery.trace import operation


def centred_dims(mean: Any, x: Any = None) -> tuple[int, ...]:
    """Dims over which a node is the mean of x (of whatever it reads by default), kept with length 1; else none."""
    if not isinstance(mean, fx.Node) or operation(mean) != "mean" or (x is not None and mean.args[0] is not x):
        return ()
    taken = Reduction.of(mean)
    return taken.dims if taken.keep else ()


def is_taken_out(mean: fx.Node) -> bool:
    """Whether a mean is read only where it is subtracted from what it is the mean of."""
    return bool(centred_dims(mean)) and all(
        operation(user) == "sub" and tuple(user.args) == (mean.args[0], mean) and not user.kwargs for user in mean.users
    )
