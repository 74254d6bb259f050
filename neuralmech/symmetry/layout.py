"""Where parameters lie in a flat buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray

if TYPE_CHECKING:  # options are checked without it
    from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Name → offset and shape. Equal shapes lie together; `names` are in the model's order."""

    offsets: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    size: int
    names: tuple[str, ...]

    @staticmethod
    def by_shape(shapes: Mapping[str, Sequence[int]], groups: Mapping[str, int] | None = None) -> Layout:
        """Lay parameters of equal shape side by side, so that one reduction serves them all; first by `groups`."""
        of = groups or dict.fromkeys(shapes, 0)
        order = sorted(shapes, key=lambda name: (of[name], tuple(shapes[name])))  # stable: model order within a shape
        starts = np.cumsum([0, *(math.prod(shapes[name]) for name in order)]).tolist()
        offsets, ordered = dict(zip(order, starts[:-1], strict=True)), {n: tuple(shapes[n]) for n in order}
        return Layout(offsets, ordered, int(starts[-1]), tuple(shapes))

    def parts(self, flat: Float[Tensor, " parameters"]) -> dict[str, Float[Tensor, "*shape"]]:
        """Each parameter's part of a flat vector, as a view of its shape."""
        places = zip(self.offsets.items(), self.shapes.values(), strict=True)
        return {name: flat[at : at + math.prod(shape)].view(shape) for (name, at), shape in places}

    def filled(self, values: Mapping[str, float]) -> Float64[NDArray, " parameters"]:
        """A number of each parameter, for all of its entries: (parameters,)."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        return np.repeat([values[name] for name in self.shapes], sizes).astype(np.float64)
