"""Where parameters lie in a flat buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """Name → offset and shape. Equal shapes lie together."""

    offsets: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    size: int

    @staticmethod
    def by_shape(shapes: Mapping[str, Sequence[int]]) -> Layout:
        """Lay parameters of equal shape side by side, so that one reduction serves them all."""
        order = sorted(shapes, key=lambda name: tuple(shapes[name]))  # stable: model order within a shape
        starts = np.cumsum([0, *(math.prod(shapes[name]) for name in order)]).tolist()
        return Layout(dict(zip(order, starts[:-1], strict=True)), {n: tuple(shapes[n]) for n in order}, int(starts[-1]))
