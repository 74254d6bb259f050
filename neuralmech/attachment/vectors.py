"""Flat copies of a model's parameters and of what belongs to them, which stay where the user has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralmech.symmetry.layout import Layout

Vector = Float[Tensor, " parameters"]


class Vectors:
    """Room for flat vectors of all tracked parameters, in the order of a layout.

    Attributes
    ----------
    layout
        Where each parameter lies in them.
    parameters
        The model's own, in this order.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.layout = Layout.by_shape({name: tuple(p.shape) for name, p in parameters.items()})
        self.parameters = [parameters[name] for name in self.layout.offsets]
        wide = any(p.dtype == torch.float64 for p in self.parameters)
        self._dtype, self.device = torch.float64 if wide else torch.float32, self.parameters[0].device
        self._rooms: dict[str, tuple[Vector, list[Tensor]]] = {}

    def room(self, key: str) -> Vector:
        """A vector for one purpose, zero at first."""
        return self._room(key)[0]

    def lend(self, key: str, vector: Vector) -> None:
        """Use another's vector for a purpose."""
        self._rooms[key] = vector, self._views(vector)

    def empty(self) -> Vector:
        """A vector for nothing yet."""
        return torch.zeros(self.layout.size, dtype=self._dtype, device=self.device)

    @torch.no_grad()
    def gather(self, key: str, tensors: Sequence[Tensor | None] | None = None) -> Vector:
        """Copy tensors, one of each parameter or by default the parameters, and zeros for None."""
        vector, views = self._room(key)
        given: Sequence[Tensor | None] = self.parameters if tensors is None else tensors
        there = [x for x in given if x is not None]
        if len(there) == len(views):
            torch._foreach_copy_(views, [_dense(x) for x in there])
            return vector
        for view, x in zip(views, given, strict=True):
            if x is None:
                view.zero_()
            else:
                view.copy_(_dense(x))
        return vector

    def by_name(self, key: str, tensors: Mapping[str, Tensor]) -> Vector | None:
        """The same by parameters' names; None if some lack."""
        if len(tensors) < len(self.layout.offsets):
            return None
        return self.gather(key, [tensors[name] for name in self.layout.offsets])

    def _room(self, key: str) -> tuple[Vector, list[Tensor]]:
        if key not in self._rooms:
            self.lend(key, self.empty())
        return self._rooms[key]

    def _views(self, vector: Vector) -> list[Tensor]:
        places: Iterable[tuple[int, tuple[int, ...]]] = zip(
            self.layout.offsets.values(), self.layout.shapes.values(), strict=True
        )
        return [vector[start : start + math.prod(shape)].view(shape) for start, shape in places]


def _dense(x: Tensor) -> Tensor:
    x = x.detach()
    return x if x.layout == torch.strided else x.to_dense()
