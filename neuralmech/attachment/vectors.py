"""Flat copies of a model's parameters and of what belongs to them, which stay where the user has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralmech.symmetry.layout import Layout

KIND = attrgetter("is_cpu", "dtype", "layout")
Vector = Float[Tensor, " parameters"]


class FlatVectors:
    """Room for flat vectors of all tracked parameters, in the order of a layout.

    Attributes
    ----------
    layout
        Where each parameter lies in them.
    parameters
        The model's own by name, in this order.
    device
        Where they were.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.layout = Layout.by_shape({name: tuple(p.shape) for name, p in parameters.items()})
        self.parameters = {name: parameters[name] for name in self.layout.offsets}
        self._own = list(self.parameters.values())
        first = self._own[0]
        wide = any(p.dtype == torch.float64 for p in self.parameters.values())
        self._dtype, self._first = torch.float64 if wide else torch.float32, first
        self._kind = {(True, self._dtype, torch.strided)}
        self.device = first.device
        self._rooms: dict[str, tuple[Vector, dict[str, Tensor]]] = {}

    @property
    def are_alike(self) -> bool:
        """Whether all parameters can be read where they are now."""
        return self.can_read(self._own)

    def can_read(self, tensors: Iterable[Float[Tensor, "*shape"]]) -> bool:
        """Whether all of them are on the CPU, dense and of the vectors' type."""
        return self._kind.issuperset(map(KIND, tensors))

    @property
    def have_moved(self) -> bool:
        """Whether the model is on another device by now."""
        return self._first.device != self.device

    def room(self, key: str) -> Vector:
        """A vector for one purpose, zero at first."""
        return self._room(key)[0]

    def views(self, key: str) -> Mapping[str, Float[Tensor, "*shape"]]:
        """Each parameter's part of a vector."""
        return self._room(key)[1]

    def lend(self, key: str, vector: Vector) -> None:
        """Use another's vector for a purpose."""
        self._rooms[key] = vector, self.layout.parts(vector)

    def empty(self) -> Vector:
        """A vector for nothing yet."""
        return torch.zeros(self.layout.size, dtype=self._dtype, device=self.device)

    def gather(self, key: str, tensors: Mapping[str, Float[Tensor, "*shape"]] | None = None) -> Vector:
        """Copy a tensor of each parameter, by default the parameters themselves."""
        self.put(key, self.parameters if tensors is None else tensors)
        return self.room(key)

    @torch.no_grad()
    def put(self, key: str, tensors: Mapping[str, Float[Tensor, "*shape"] | None]) -> list[Float[Tensor, "*shape"]]:
        """Copy tensors of some parameters to their places, and zeros for None; returns these places."""
        of_all = self._room(key)[1]
        places = [of_all[name] for name in tensors]
        there = [_dense(x) for x in tensors.values() if x is not None]
        if len(there) == len(places):
            torch._foreach_copy_(places, there)
            return places
        for place, x in zip(places, tensors.values(), strict=True):
            if x is None:
                place.zero_()
            else:
                place.copy_(_dense(x))
        return places

    def by_name(self, key: str, tensors: Mapping[str, Float[Tensor, "*shape"]]) -> Vector | None:
        """What optimisers keep of the parameters; None if some lack."""
        return self.gather(key, tensors) if len(tensors) == len(self.parameters) else None

    def _room(self, key: str) -> tuple[Vector, dict[str, Tensor]]:
        if key not in self._rooms:
            self.lend(key, self.empty())
        return self._rooms[key]


def _dense(x: Tensor) -> Tensor:
    x = x.detach()
    return x if x.layout == torch.strided else x.to_dense()
