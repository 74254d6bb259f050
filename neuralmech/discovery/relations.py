"""Linear relations that hold among the channels of a tensor, whatever the parameters and the data.

Where a channel is repeated or constant, a mean is taken out or a constant matrix of lower rank is applied, h lies in an
affine subspace, n·h + r = 0, and a weight that reads it may have its rows moved along n without anyone noticing. The
relations of a tensor follow from those of what it is computed from (`relation_rules`); they are solved for exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, fx

from neuralmech.discovery.system import System
from neuralmech.discovery.trace import is_by_chance, operation

Normals: TypeAlias = sparse.csr_array  # (relations, channels + 1): each row is n and, last, r of n·h + r = 0
ByDim: TypeAlias = dict[int, Normals]
Known: TypeAlias = Mapping[fx.Node, Any]  # constants, and what they are
MOST = 1 << 16  # numbers in a system that is solved; where there are more, no relation is told


class Operand(NamedTuple):
    """A tensor as combinations of columns: channel j is the column `at`[j] (−1: none) plus the number `added`[j].

    The columns, of which there are `columns`, have the relations `normals`, (relations, columns + 1).
    """

    columns: int
    at: NDArray[np.int64]
    added: NDArray[np.float64]
    normals: Normals

    @property
    def is_free(self) -> bool:
        """Whether nothing is known of it: each channel is a column of its own, without relations."""
        return self.columns == self.at.size > 1 and not self.normals.nnz

    @staticmethod
    def of_channels(normals: Normals) -> Operand:
        """Each channel is a column, and they have these relations."""
        channels = normals.shape[1] - 1
        return Operand(channels, np.arange(channels), np.zeros(channels), normals)

    @staticmethod
    def of_one(channels: int) -> Operand:
        """One column, the same for so many channels."""
        return Operand(1, np.zeros(channels, dtype=np.int64), np.zeros(channels), none(1))

    @staticmethod
    def of_numbers(values: Float64[NDArray, " channels"]) -> Operand:
        """A known number for each channel."""
        return Operand(0, np.full(values.size, -1), values, none(0))


@dataclass
class Relations:
    """Relations of every tensor of a graph along some of its dims (`told_dims`), where there are any."""

    of: dict[fx.Node, ByDim] = field(default_factory=dict)
    parts: dict[fx.Node, Sequence[ByDim]] = field(default_factory=dict)

    def along(self, node: Any, dim: int) -> Normals | None:
        """Relations of a tensor along a dim; None if there are none."""
        if not isinstance(node, fx.Node) or node not in self.of:
            return None
        return self.of[node].get(dim % node.meta["val"].dim())

    def observe(self, node: fx.Node, known: Known) -> None:
        """Find the relations of a node's value from those of its inputs; `known` are constants.

        What is drawn for each element (the slopes of RReLU) makes others of equal channels.
        """
        rule = None if is_by_chance(node) else RULES.get(operation(node))
        found = rule(self, node, known) if rule else None
        if found and isinstance(found, dict):
            found = {dim: normals for dim, normals in found.items() if normals.nnz}
            if found:
                self.of[node] = found
        elif found:
            self.parts[node] = found  # type: ignore[assignment]

    def operand(self, x: Any, shape: torch.Size, dim: int, known: Known) -> Operand | None:
        """What an operation broadcasts to `shape`, along a dim of this; None if it is no number and no tensor."""
        channels = shape[dim]
        if isinstance(x, (int, float)):
            return Operand.of_numbers(np.full(channels, float(x)))
        if not isinstance(x, fx.Node) or not isinstance(x.meta.get("val"), Tensor):
            return None
        values = constant_along(known.get(x), shape, dim)
        if values is not None:
            return Operand.of_numbers(values)
        size = x.meta["val"].shape
        mine = dim - len(shape) + len(size)
        if mine < 0 or size[mine] < channels:
            return Operand.of_one(channels)
        return Operand.of_channels(self.of.get(x, {}).get(mine, none(channels)))


Rule = Callable[[Relations, fx.Node, Known], "ByDim | Sequence[ByDim] | None"]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how relations pass the operations `names`; any other ends them."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def told_dims(shape: Sequence[int]) -> tuple[int, ...]:
    """Dims along which relations are told: the last, the channels of images, and the rows of a matrix."""
    rank = len(shape)
    return (1, rank - 1) if rank > 2 else tuple(range(rank))


def none(channels: int) -> Normals:
    """No relation among so many channels."""
    return sparse.csr_array((0, channels + 1), dtype=np.float64)


def sum_is(total: float, channels: int) -> Normals:
    """The channels sum to a number."""
    return sparse.csr_array(np.append(np.ones(channels), -total)[None])


def constant_along(values: Any, shape: torch.Size, dim: int) -> Float64[NDArray, " channels"] | None:
    """Numbers of a constant along a dim of `shape`, to which it is broadcast; None where they vary elsewhere, too."""
    if not isinstance(values, Tensor) or values.is_complex() or values.dim() > len(shape):
        return None
    whole = values.expand(shape)
    first = whole[tuple(slice(None) if d == dim else slice(0, 1) for d in range(len(shape)))]
    told = bool(first.isfinite().all()) and bool((whole == first).all())
    return first.flatten().double().numpy() if told else None


def solutions(rows: sparse.coo_array) -> sparse.csr_array:
    """A basis of what a matrix takes to zero, exactly: sparse, shape (solutions, columns); none if it is too large."""
    count = rows.shape[1]
    if rows.nnz > MOST:
        return sparse.csr_array((0, count), dtype=np.float64)
    system = System()
    unknowns = system.new(count)
    matrix = sparse.csr_array(rows)
    matrix.eliminate_zeros()
    for first, end in zip(matrix.indptr[:-1].tolist(), matrix.indptr[1:].tolist(), strict=True):
        if end > first:
            numbers = [Fraction(v) for v in matrix.data[first:end].tolist()]
            system.add_rows(unknowns[matrix.indices[first:end]][None], numbers)
    return sparse.csr_array(system.solve().values(unknowns).T)


def carried(operands: Iterable[tuple[Operand, float]], channels: int) -> Normals:
    """Relations of Σ factor·operand: Σ_j n_j h_j + r = 0 if the columns' coefficients are a combination of theirs."""
    rows, columns, data, mine, size = [], [], [], [], 0
    constant = np.zeros(channels)
    for operand, factor in operands:
        there = np.flatnonzero(operand.at >= 0)
        rows.append(there)
        columns.append(size + operand.at[there])
        data.append(np.full(there.size, float(factor)))
        constant += factor * operand.added
        mine.append(operand.normals)
        size += operand.columns
    triple = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return mapped(sparse.coo_array(triple, shape=(channels, size)), constant, beside(mine))


def beside(normals: Sequence[Normals]) -> Normals:
    """Relations of several tensors as those of all their channels, one tensor's after the other's."""
    numbers = sparse.block_diag([sparse.csr_array((0, 0)), *(n[:, :-1] for n in normals)])
    last = sparse.vstack([sparse.csr_array((0, 1)), *(n[:, -1:] for n in normals)])
    return sparse.csr_array(sparse.hstack([numbers, last]))


def mapped(matrix: sparse.coo_array, constant: Float64[NDArray, " out"], normals: Normals) -> Normals:
    """Relations of h′ = matrix·h + constant, where h has some: those n for which nᵀmatrix is a combination of theirs.

    Solved for n (channels), r and the combination a (relations): matrixᵀn = normalsᵀa, with r for the constants.
    """
    channels = matrix.shape[0]
    all_of_it = sparse.hstack([matrix.T, sparse.coo_array((matrix.shape[1], 1)), -normals[:, :-1].T])
    last = sparse.hstack([sparse.coo_array(constant[None]), sparse.coo_array([[1.0]]), -normals[:, -1:].T])
    found = solutions(sparse.coo_array(sparse.vstack([all_of_it, last])))
    return sparse.csr_array(found[:, : channels + 1])


def without_constant(normals: Normals) -> Normals:
    """Those relations that say n·h = 0: they hold of any multiple of h, too."""
    if not normals[:, -1:].nnz:
        return normals
    kept = sparse.csr_array(solutions(sparse.coo_array(normals[:, -1:].T)) @ normals[:, :-1])
    zeros = sparse.csr_array((kept.shape[0], 1))  # exactly, as the products would not be
    return sparse.csr_array(sparse.hstack([kept, zeros]))


def classes(operand: Operand) -> tuple[Int64[NDArray, " channels"], dict[int, float]]:
    """Number channels such that those of one number are equal; and what is constant of them, by its number."""
    if not operand.normals.nnz:
        return operand.at if operand.columns else _numbered(operand.added.tolist()), {}
    free = sparse.csr_array(solutions(sparse.coo_array(operand.normals)).T)  # (channels + 1, numbers that are free)
    rows = [(tuple(r.indices.tolist()), tuple(r.data.tolist())) for r in (free[[i]] for i in range(free.shape[0]))]
    numbers = _numbered(rows[:-1])
    places, data = rows[-1]
    constant = {
        int(numbers[j]): mine[0] / data[0] if mine else 0.0
        for j, (at, mine) in enumerate(rows[:-1])
        if (not at or at == places) and len(data) == 1
    }
    return numbers, constant


def _numbered(keys: Sequence[Any]) -> NDArray[np.int64]:
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def equal_channels(numbers: Int64[NDArray, " channels"], constant: Mapping[int, float]) -> Normals:
    """Relations that say which channels are equal (have the same number), and which are constant."""
    channels, first = numbers.size, {}
    rows: list[dict[int, float]] = []
    for j, number in enumerate(numbers.tolist()):
        if math.isfinite(constant.get(number, math.nan)):
            rows.append({j: 1.0, channels: -constant[number]})
        elif first.setdefault(number, j) != j:
            rows.append({j: 1.0, first[number]: -1.0})
    at = [(i, j, v) for i, row in enumerate(rows) for j, v in row.items() if v]
    i, j, v = zip(*at, strict=True) if at else ((), (), ())
    return sparse.csr_array((np.array(v, dtype=np.float64), (i, j)), shape=(len(rows), channels + 1))
