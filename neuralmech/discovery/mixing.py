"""Which channels may be mixed linearly: the algebra behind the matrix-valued family ``linear``.

Channels are mixable if they are written alike, moved alike and read alike. Every element of a tensor carries
two numbers: the *channel* it belongs to, and its *history*, which says what it is apart from the channel (the
position it was written at, the attention weights it was summed with, …). A linear map writes fresh channels,
one per row of its weight, and reads the channels of its input, one per column. Two channels that were read
with the same histories at the same places by the same weights can be mixed: θ_write ↦ A θ_write, θ_read ↦
θ_read A⁻¹ leaves everything after the reading as it was.

A channel and its dual (what reads it transforms with A⁻ᵀ) are two ids, 2k and 2k + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from neuralmech.discovery.distinct import distinct_pairs, distinct_rows
from neuralmech.discovery.engine import Algebra, Parameter, RuleTable, Symbol
from neuralmech.discovery.geometry import Variables, narrow
from neuralmech.discovery.system import ZERO, Ids
from neuralmech.symmetry.family import Axis

rule: RuleTable[Vectors] = RuleTable()


class Vectors(Symbol):
    """A tensor's channels and, computed only where somebody asks, its histories; both in the tensor's shape.

    Channel 0 is what no mixing touches.
    """

    def __init__(self, channels: Variables, history: Callable[[], Variables]) -> None:
        self.channels = channels
        self._make = history

    @cached_property
    def history(self) -> Variables:
        """History of every element."""
        return self._make()

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor."""
        return self.channels.shape


@dataclass(frozen=True)
class Reading:
    """One event in which channels were told apart: `tokens` of the raw ids `channels`."""

    channels: Ids
    tokens: Ids


@dataclass
class MixingAlgebra(Algebra[Vectors]):
    """Channels of every tensor; unknown operations and anything nonlinear forbid mixing.

    A linear map along positions (a mixer's of tokens) either lets channels pass, `through_positions`, or writes
    positions as channels of its own, and ends those that come in; `met_positions` tells whether there was one.
    """

    through_positions: bool = True
    met_positions: bool = False
    axes: dict[str, tuple[tuple[Axis, Ids, int], ...]] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    _labels: int = 1

    def __post_init__(self) -> None:
        self.rules = rule
        self.system.new(1)  # so that channels start at an even id and their duals are odd

    def constant(self, shape: torch.Size) -> Vectors:
        """A tensor that no mixing touches; each element has a history of its own."""
        count = torch.Size(shape).numel()
        first = self._take(count)
        none = torch.zeros((), dtype=torch.int64).expand(shape)
        return Vectors(none, lambda: torch.arange(first, first + count).reshape(shape))

    def is_constant(self, value: Vectors) -> bool:
        """Whether no mixing touches the tensor."""
        return not self.system.find(narrow(value.channels)[0].numpy()).any()

    def forbid(self, value: Vectors | Parameter | None, why: str) -> None:
        """Demand that the tensor's channels are not mixed."""
        if isinstance(value, Parameter):
            for _, ids, _ in self.axes.get(value.name, ()):
                self.zero(ids)
            self.axes.setdefault(value.name, ())
        elif isinstance(value, Vectors):
            self.zero(np.unique(narrow(value.channels)[0].numpy()))

    def zero(self, channels: Ids) -> None:
        """Forbid some channels and their duals."""
        self.system.zero(channels)
        self.system.zero(dual(channels))

    def unify(self, a: Ids, b: Ids) -> None:
        """Demand that two arrays of channels are mixed alike, elementwise with broadcasting."""
        self.system.equate(a, b)
        self.system.equate(dual(a), dual(b))

    def axis(self, parameter: Parameter, *wanted: tuple[Axis, int, int]) -> list[Ids]:
        """Channels along axes of a parameter: (axis, length, groups) each.

        A parameter that is used in two different ways, or never moves, is not mixed.
        """
        if parameter.name not in self.axes:
            made: tuple[tuple[Axis, Ids, int], ...] = tuple(
                (axis, self.system.new(2 * length)[::2], groups) for axis, length, groups in wanted
            )
            self.axes[parameter.name] = made
            if parameter.name in self.frozen:
                self.forbid(parameter, "")
        known = {axis: ids for axis, ids, _ in self.axes[parameter.name]}
        if any(axis not in known for axis, _, _ in wanted):
            self.forbid(parameter, "")
        return [known.get(axis, np.zeros(length, dtype=np.int64)) for axis, length, _ in wanted]

    def value(self, operand: Any) -> Vectors:
        """Any operand as vectors; a parameter's entries are channels of their own."""
        if isinstance(operand, Vectors):
            return operand
        if isinstance(operand, Parameter) and operand.name in self.kept:
            return self.fixed(operand)  # a norm takes its entries together
        if isinstance(operand, Parameter):
            (ids,) = self.axis(operand, ("entries", operand.shape.numel(), 1))
            first = self._take(1)
            return Vectors(torch.from_numpy(ids).reshape(operand.shape), lambda: torch.full(operand.shape, first))
        return self.constant(torch.Size(()))

    def fixed(self, operand: Any) -> Vectors:
        """An operand that acts as a coefficient: a parameter there is not mixed."""
        if isinstance(operand, Parameter):
            self.forbid(operand, "")
            return self.constant(operand.shape)
        return self.value(operand)

    def write(self, channels: Ids, positions: torch.Size) -> Vectors:
        """Fresh vectors with `channels` along the last dim, one history per position."""
        count = positions.numel()
        first, length = self._take(count), channels.size
        ids = torch.from_numpy(channels).expand(*positions, length)
        return Vectors(
            ids, lambda: torch.arange(first, first + count).reshape(*positions, 1).expand(*positions, length)
        )

    def read(
        self,
        channels: Int64[Tensor, "... length"],
        history: Callable[[], Int64[Tensor, "... length"]],
        duals: Ids,
        groups: Ids | None = None,
    ) -> None:
        """Contract vectors, (…, length), with something that has `duals` along that length."""
        kept = narrow(channels)[0]
        rows, _ = distinct_rows(kept.expand(*kept.shape[:-1], channels.shape[-1]).flatten(0, -2).numpy())
        self.unify(rows, dual(duals)[None, :])
        if not self.system.find(duals).any():
            return
        columns = history().flatten(0, -2).T
        if groups is not None:
            columns = torch.cat([torch.from_numpy(groups)[:, None], columns], dim=1)
        tokens = self.labels(columns)
        self.tell(duals, tokens)
        raw = distinct_pairs(rows.ravel(), np.tile(tokens, len(rows)))
        self.tell(raw[0], raw[1])

    def tell(self, channels: Ids, tokens: Ids) -> None:
        """Remember that raw ids met an event as `tokens`."""
        self.readings.append(Reading(np.asarray(channels), np.asarray(tokens)))

    def labels(self, rows: Int64[Tensor, "rows width"]) -> Ids:
        """Fresh label of each row (n, m): the same for equal rows, and for none of another event."""
        kept = narrow(rows)[0]
        kept = kept.expand(rows.shape[0], kept.shape[1])
        return distinct_rows(kept.numpy())[1] + self._take(rows.shape[0])

    def combined(self, *histories: Variables) -> Variables:
        """Fresh histories, one per distinct tuple of histories."""
        shape = torch.broadcast_shapes(*(h.shape for h in histories))
        parts = torch.broadcast_tensors(*(narrow(h)[0] for h in histories))
        rows = torch.stack([p.reshape(-1) for p in parts], dim=1)
        return torch.from_numpy(self.labels(rows)).reshape(parts[0].shape).expand(shape)

    def _take(self, count: int) -> int:
        self._labels += max(count, 1)
        return self._labels - max(count, 1)


def dual(channels: Ids) -> Ids:
    """Dual of each channel."""
    channels = np.asarray(channels)
    return np.where(channels == ZERO, ZERO, channels ^ 1)


def constant_along(x: Variables, dims: tuple[int, ...]) -> bool:
    """Whether a tensor does not change along some dims."""
    kept = narrow(x)[0]
    return all(kept.shape[d] == 1 for d in dims)
