"""Rules for log-scales: every channel space has an unknown s, every operation constrains it.

If the entries of a tensor x are multiplied by α^s, an operation either carries the exponents on, combines
them, or allows none. A linear map's weight entry then scales as r_out − c_in, its bias as r_out. The null
space of all constraints is the set of diagonal symmetries θ ↦ α^m ⊙ θ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.distinct import distinct_rows
from neuralmech.discovery.engine import Algebra, Parameter, RuleTable, Symbol, once
from neuralmech.discovery.geometry import Variables
from neuralmech.discovery.scale_sums import Sums
from neuralmech.discovery.system import Ids
from neuralmech.discovery.trace import place

rule: RuleTable[Tensor] = RuleTable()


@dataclass(frozen=True)
class Factors:
    """A weight's exponents: entry (o, i, …) scales as rows[o] − columns[group(o), i]."""

    rows: Ids
    columns: Ids
    groups: int = 1


class Zeros(Symbol):
    """A tensor that is zero at every parameter: 0·α^s = 0 for any s, so it scales as whatever reads it likes."""

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape


def is_zero(value: object) -> bool:
    """Whether an operand is zero at every parameter: a tensor that is, or the number."""
    return isinstance(value, Zeros) or (isinstance(value, (int, float)) and value == 0)


@dataclass
class ScaleAlgebra(Algebra[Tensor]):
    """Value of a tensor: the id of the log-scale of every element, in the tensor's own shape."""

    factors: dict[str, Factors] = field(default_factory=dict)
    approximations: dict[str, None] = field(default_factory=dict)  # what holds up to a small number only, in order

    def __post_init__(self) -> None:
        self.rules = rule
        self._sums = Sums(self.system)

    def constant(self, shape: torch.Size) -> Variables:
        """Ids of a tensor whose elements do not scale."""
        return torch.zeros((), dtype=torch.int64).expand(shape)

    def zeros(self, shape: torch.Size) -> Zeros:  # type: ignore[override]
        """Zeros, which bind nothing."""
        return Zeros(shape)

    def is_constant(self, value: Variables | Zeros) -> bool:
        """Whether no element scales."""
        return isinstance(value, Zeros) or not self.system.find(geometry.narrow(value)[0].numpy()).any()

    def forbid(self, value: Variables | Parameter, why: str) -> None:
        """Demand that no element scale."""
        if isinstance(value, Parameter) and value.name in self.factors:
            weight = self.factors[value.name]
            self.system.equate(*_outer(weight), why)
        elif isinstance(value, (Parameter, Tensor)):
            self.system.zero(np.unique(geometry.narrow(self.ids(value))[0].numpy()), why)

    def ids(self, value: Variables | Parameter | Zeros | float) -> Variables:
        """Ids of any operand; a parameter gets one id per entry."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Zeros):
            return torch.from_numpy(self.system.new(value.shape.numel())).reshape(value.shape)
        if not isinstance(value, Parameter):
            return torch.zeros((), dtype=torch.int64)
        entries = self.entries(value)
        if value.name in self.factors:
            self._tie(value, self.factors[value.name], entries)
        return torch.from_numpy(entries)

    def why_fixed(self, name: str) -> list[str]:
        """Reasons why a parameter does not scale."""
        if name in self.entry_ids:
            return self.system.why_zero(once(self.entry_ids[name]))
        if name in self.factors:
            weight = self.factors[name]
            return self.system.why_zero(np.concatenate([weight.rows, weight.columns]))
        return []

    def _tie(self, parameter: Parameter, weight: Factors, entries: Ids) -> None:
        rows, columns = _outer(weight)
        apart = tuple(slice(1) if step == 0 else slice(None) for step in entries.strides[2:])
        grid = entries[:, :, *apart].reshape(parameter.shape[0], parameter.shape[1], -1)
        parts = np.broadcast_arrays(grid, rows[..., None], columns[..., None])
        self.system.add_rows(np.stack([p.ravel() for p in parts], axis=1), [1, -1, 1])

    def equate(self, a: Variables, b: Variables, node: fx.Node) -> None:
        """Demand that two tensors scale alike, elementwise with broadcasting."""
        a, b = geometry.narrow(a)[0], geometry.narrow(b)[0]
        self.system.equate(a.numpy(), b.numpy(), f"fixed where it meets a fixed tensor at {place(node)}")

    def unify(self, x: Variables, dims: tuple[int, ...], node: fx.Node) -> Variables:
        """Demand that all elements along `dims` scale alike; returns x with those dims narrowed to 1."""
        first = geometry.first_along(x, dims)
        self.equate(x, first.expand_as(x), node)
        return first

    def combine(self, operands: list[Variables], coefficients: Sequence[int | Fraction]) -> Variables:
        """Ids of Σ coefficient·operand: one id per distinct combination of operand ids."""
        shape = torch.broadcast_shapes(*(o.shape for o in operands))
        narrow = torch.broadcast_tensors(*(geometry.narrow(o)[0] for o in operands))
        stacked = np.stack([self.system.find(n.numpy()).ravel() for n in narrow], axis=1)
        tuples, inverse = distinct_rows(stacked)
        ids = self._sums.of(tuples, coefficients)[inverse]
        return torch.from_numpy(ids).reshape(narrow[0].shape).expand(shape)

    def linear_map(self, inputs: Ids, weight: Parameter, groups: int = 1) -> Ids:
        """Exponents after a linear map, for distinct rows of input exponents.

        `inputs` has shape (rows, in channels); the result (rows, out channels). The weight's first use fixes
        its factors; every further row adds one unknown constant per group, because r and c are known only
        up to that.
        """
        channels = self.system.find(inputs)
        if weight.name in self.factors:
            return self._used_again(channels, self.factors[weight.name], transposed=False)
        rows = self.system.new(weight.shape[0])
        self.introduce(weight, Factors(rows, channels[0], groups))
        return np.concatenate([rows[None], self._used_again(channels[1:], self.factors[weight.name], transposed=False)])

    def transposed_map(self, inputs: Ids, weight: Parameter, groups: int = 1) -> Ids:
        """Exponents after a linear map by a weight (in, out/groups, …), for distinct rows of input exponents.

        Entry (i, o) scales as rows[i] − columns[g, o], so o gives k_g − columns[g, o] where inputs[i] + rows[i] = k_g.
        """
        if weight.name not in self.factors:
            rows, outputs = self._negative(inputs[0]), self.system.new(weight.shape[1] * groups)
            self.introduce(weight, Factors(rows, self._negative(outputs), groups))
        factors = self.factors[weight.name]
        if factors.groups != groups:
            raise ValueError("a weight used with different numbers of groups")
        # Row by row: negatives that a later row reads as well stay older than what this row makes.
        return np.concatenate(
            [self._used_again(inputs[j : j + 1], factors, transposed=True) for j in range(len(inputs))]
        )

    def _negative(self, ids: Ids) -> Ids:
        return self.combine([torch.from_numpy(ids)], [-1]).numpy()

    def introduce(self, weight: Parameter, factors: Factors) -> None:
        """Give a weight its factors, consistent with what is known of its entries."""
        self.factors[weight.name] = factors
        if weight.name in self.frozen:
            self.system.equate(*_outer(factors), "frozen (requires_grad=False)")
        if weight.name in self.entry_ids:
            self._tie(weight, factors, self.entry_ids[weight.name])

    def cancel(self, a: Variables, b: Variables) -> None:
        """Demand a + b = 0, elementwise."""
        pairs = torch.stack(torch.broadcast_tensors(a, b), dim=-1).reshape(-1, 2)
        self.system.add_rows(pairs.numpy(), [1, 1])

    def _used_again(self, channels: Ids, weight: Factors, *, transposed: bool) -> Ids:
        """Exponents after further uses, for rows of channels; for each an unknown k per group.

        Rows and columns of a weight are known only up to that. With entry (o, i) scaling as rows[o] − columns[i], a map
        from i gives o rows[o] + k where channels[i] − columns[i] = k, and one from o (`transposed`) gives i
        k − columns[i] where channels[o] + rows[o] = k.
        """
        read, written = (weight.rows, weight.columns) if transposed else (weight.columns, weight.rows)
        sign = 1 if transposed else -1
        compared = self.system.find(self._negative(channels) if transposed else channels)
        again = np.flatnonzero((compared != self.system.find(read)).any(axis=1))
        as_before = self._negative(written) if transposed and again.size < len(channels) else written
        outputs = np.tile(as_before, (len(channels), 1))
        width = weight.groups + written.size
        new = self.system.new(again.size * width).reshape(again.size, width)
        constants, outputs[again] = new[:, : weight.groups], new[:, weight.groups :]
        self._differ_by(constants, sign, (channels[again], read), (outputs[again], written))
        return outputs

    def _differ_by(self, constants: Ids, sign: int, *pairs: tuple[Ids, Ids]) -> None:
        """Demand first + sign·second = constant, group by group, for every pair; firsts and constants in rows."""
        parts = []
        for first, second in pairs:
            each = np.repeat(constants, second.size // constants.shape[1], axis=1)
            parts.append(np.stack([first, np.broadcast_to(second, first.shape), each], axis=2))
        self.system.add_rows(np.concatenate(parts, axis=1).reshape(-1, 3), [1, sign, -1])


def _outer(weight: Factors) -> tuple[Ids, Ids]:
    """Row and column ids of every (out, in-within-group) pair of a weight, broadcastable."""
    out, width = weight.rows.size, weight.columns.size // weight.groups
    columns = np.repeat(weight.columns.reshape(weight.groups, width), out // weight.groups, axis=0)
    return np.broadcast_to(weight.rows[:, None], columns.shape), columns
