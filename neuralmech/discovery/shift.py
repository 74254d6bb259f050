"""Rules for shifts: the constant displacements of the parameters that the loss ignores.

A displacement of the parameters displaces a tensor by δx = Σ_sectors Σ_i row[i]·A[i]. A sector says where the
displacement's amplitude A comes from: the number one for additive parameters, the input of a linear map for
its weight. Every sink (softmax cross-entropy, a norm) ignores what is constant along some of its dimensions;
everything nonlinear ignores nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.distinct import distinct
from neuralmech.discovery.engine import Algebra, Parameter, RuleTable, once
from neuralmech.discovery.geometry import Variables
from neuralmech.discovery.relations import Normals, Relations
from neuralmech.discovery.shift_values import CONSTANT, Sector, Shift, reshaped
from neuralmech.discovery.system import Ids, Solution
from neuralmech.discovery.trace import place
from neuralmech.symmetry.family import Axis


@dataclass
class Redundancy:
    """Displacements e_o ⊗ n ⊗ e_t of a weight (O, C, taps…) that reads h with n·h + r = 0: its output moves by −r.

    Attributes
    ----------
    normals
        Those n and r, (relations, C + 1).
    ids
        Unknowns, (relations, O, taps).
    node
        The weight in the graph.
    uses
        How many operations that read it these displacements were told of.
    """

    normals: Normals
    ids: Ids
    node: fx.Node
    uses: int = 0


rule: RuleTable[Shift] = RuleTable()


@dataclass
class ShiftAlgebra(Algebra[Shift]):
    """Value of a tensor: its displacement, by sector.

    An embedding may be displaced token by token (`weights`) and, besides, for all tokens alike (`uniform`: one
    unknown per channel), which a position table can take back. The rows of a weight may be displaced along what its
    input has no component along (`redundant`).
    """

    uniform: dict[str, Ids] = field(default_factory=dict)
    redundant: dict[str, Redundancy] = field(default_factory=dict)
    relations: Relations = field(default_factory=Relations)
    weights: dict[str, tuple[Axis, Ids]] = field(default_factory=dict)
    _asked: dict[tuple[int, ...], list[frozenset[tuple]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rules = rule

    def constant(self, shape: torch.Size) -> Shift:
        """Return no displacement."""
        return {}

    def is_constant(self, value: Shift) -> bool:
        """Whether nothing displaces the tensor."""
        return not value

    def forbid(self, value: Shift | Parameter, why: str) -> None:
        """Demand that the tensor be not displaced."""
        if isinstance(value, Parameter):
            _, ids = self.weights.get(value.name) or ("rows", self.rows(value, "rows"))
            self.system.zero(ids, why)
            for more in (self.entry_ids, self.uniform):
                if value.name in more:
                    self.system.zero(once(more[value.name]), why)
        elif isinstance(value, dict):
            for sector in value.values():
                self._demand(list(sector.terms), why)
                for terms in sector.origins:
                    self._demand(list(terms), why)

    def rows(self, weight: Parameter, axis: Axis, groups: int = 1) -> Ids:
        """One unknown per output of a weight: its rows (out, in, …) or its columns (in, out/groups), zero if frozen.

        A weight used both ways, or entry by entry too (tied embeddings), makes no claim.
        """
        length = (weight.shape[0] if axis == "rows" else weight.shape[1] * groups) if weight.shape else 1
        if weight.name not in self.weights:
            self.weights[weight.name] = (axis, self.system.new(length))
        known, ids = self.weights[weight.name]
        if weight.name in self.frozen:
            self.system.zero(ids, "frozen (requires_grad=False)")
        if known != axis or ids.size != length or weight.name in self.entry_ids:
            self.system.zero(ids, "used in two ways")
            self.system.zero(once(self.entry_ids.get(weight.name, np.zeros(0, dtype=np.int64))), "used in two ways")
            return np.zeros(length, dtype=np.int64)
        return ids

    def tokens_alike(self, table: Parameter) -> Ids:
        """One unknown per channel of an embedding, the same for all tokens; zero where it was used otherwise before."""
        if table.name not in self.uniform:
            self.uniform[table.name] = self.system.new(table.shape[1])
            if table.name in self.frozen or table.name in self.entry_ids or self.weights[table.name][0] != "columns":
                self.system.zero(self.uniform[table.name], "frozen, or used in two ways")
        return self.uniform[table.name]

    def tokens_apart(self, table: Parameter) -> None:
        """Demand that a weight is not displaced alike for all tokens: something that is no embedding reads it too."""
        if table.name in self.uniform:
            self.system.zero(self.uniform[table.name], "used in two ways")
        else:
            self.uniform[table.name] = np.zeros(self.weights[table.name][1].size, dtype=np.int64)

    def observe(self, node: fx.Node) -> None:
        """Find the relations among an output's channels."""
        self.relations.observe(node, self.concrete)

    def solve(self) -> Solution:
        """Null space, with nothing in it twice.

        To move all tokens of an embedding alike is the sum of moving each, where each may move: a repetition for
        every component of the displacements token by token. An entry that only this component moves is held. So it
        is with the rows of a weight: to move each along n is to move some columns alike.
        """
        for found in self.redundant.values():
            if found.uses < len(found.node.users):
                self.system.zero(found.ids, "read by something else, too")
        solution = self.system.solve()
        together = [(n, ids[:, None]) for n, ids in self.uniform.items()]
        for name, found in self.redundant.items():
            relations, outputs, taps = found.ids.shape
            taken = found.ids.swapaxes(0, 1).reshape(outputs, relations * taps)
            together.append((name, taken))
        if not together:
            return solution
        width = max(ids.shape[1] for _, ids in together)
        held = np.concatenate([np.pad(ids, ((0, 0), (0, width - ids.shape[1]))) for _, ids in together])
        moved = solution.values(np.concatenate([self.weights[name][1] for name, _ in together]))
        alone = np.flatnonzero(np.diff(moved.indptr) == 1)
        repeated, first = np.unique(moved.indices[moved.indptr[alone]], return_index=True)
        self.system.zero(held[alone[first]])
        shared = np.flatnonzero(np.isin(moved.indices, repeated, invert=True))  # with another weight: claim less
        self.system.zero(held[np.searchsorted(moved.indptr, shared, side="right") - 1])
        return self.system.solve() if moved.nnz else solution

    def shift(self, value: Any) -> Shift:
        """Displacement of any operand; a parameter read as it is displaces every entry by itself."""
        if isinstance(value, Parameter):
            ids = torch.from_numpy(self.entries(value))
            if value.name in self.weights:
                self.forbid(value, "used in two ways")
            return {CONSTANT: Sector(torch.zeros((), dtype=torch.int64).expand(ids.shape), ((Fraction(1), ids),))}
        return value if isinstance(value, dict) else {}

    def ignore(self, x: Shift, view: tuple[int, ...] | torch.Size, dims: tuple[int, ...], why: str) -> None:
        """Sink: only displacements constant along `dims` of ``x.reshape(view)`` are allowed."""
        for sector in x.values():
            seen = reshaped(sector, view)
            if bool((seen.amplitude == geometry.first_along(seen.amplitude, dims)).all()):
                pairs = [(c, rows, geometry.first_along(rows, dims).expand_as(rows)) for c, rows in seen.terms]
                vary = [(c, rows, first) for c, rows, first in pairs if not self.same(rows, first)]
                vary = self._news(vary, dims)
                self._demand([(c, r) for c, r, _ in vary] + [(-c, f) for c, _, f in vary], why)
            else:
                self.forbid({CONSTANT: seen}, why)

    def _news(self, terms: list[tuple[Fraction, Tensor, Tensor]], dims: tuple[int, ...]) -> list:
        """Drop what an earlier sink demanded to be constant already.

        Every norm that reads a residual stream sees what the norms before it saw, and one more writer; perhaps in a
        copy, where the stream was cut and put together again.
        """
        keys = {(c, _content(rows)): (c, rows, first) for c, rows, first in terms}
        if len(keys) < len(terms):  # a tensor added twice: leave the sum as it is
            return terms
        for earlier in self._asked.setdefault(dims, []):
            if earlier <= keys.keys():
                keys = {key: term for key, term in keys.items() if key not in earlier}
        if keys:
            self._asked[dims].append(frozenset(keys))
        return list(keys.values())

    def same(self, a: Variables, b: Variables) -> bool:
        """Whether two tensors of unknowns are equal, as far as is known."""
        a, b = geometry.narrow(a, b)
        return np.array_equal(self.system.find(a.numpy()), self.system.find(b.numpy()))

    def _demand(self, terms: list[tuple[Fraction, Tensor]], why: str) -> None:
        """Demand Σ coefficient·unknown = 0 at every element."""
        if not terms:
            return
        stacked = torch.stack(geometry.narrow(*torch.broadcast_tensors(*(t for _, t in terms))), dim=-1)
        tuples = distinct(self.system.find(stacked.reshape(-1, len(terms)).numpy()))
        coefficients = [c for c, _ in terms]
        if len(terms) == 1:
            self.system.zero(tuples[:, 0], why)
        elif len(terms) == 2 and sum(coefficients) == 0:
            self.system.equate(tuples[:, 0], tuples[:, 1], why)
        else:
            self.system.add_rows(tuples, coefficients)


def _content(rows: Tensor) -> tuple[torch.Size, torch.Size, bytes]:
    """What tensors of unknowns have in common if they are equal, and only then."""
    kept = geometry.narrow(rows)[0].contiguous()
    return rows.shape, kept.shape, blake2b(kept.numpy().tobytes()).digest()


def let_none_pass(algebra: ShiftAlgebra, node: fx.Node, *values: Any) -> None:
    """Forbid every displacement of an operation's inputs."""
    for value in values:
        algebra.forbid(value, f"{node.name} at {place(node)} is not blind to shifts")
