"""Displacements of a tensor, and what rules do with them: reshape, add, multiply, mix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.distinct import distinct_rows, numbered_pairs
from neuralmech.discovery.geometry import Variables

MOST_TERMS = 64  # of a displacement that a constant matrix mixes
CONSTANT = ("constant",)
Key = tuple[Any, ...]
Terms = tuple[tuple[Fraction, Tensor], ...]


@dataclass(frozen=True)
class Sector:
    """The part of a tensor's displacement that has one kind of amplitude.

    Attributes
    ----------
    amplitude
        Which amplitude vector each element sees (equal numbers: the same one), in the tensor's shape.
    terms
        Pairs (coefficient, unknowns in the tensor's shape). An unknown stands for a row of a weight, one number
        per amplitude component, or for one additive parameter; 0 is no displacement.
    origins
        Of an opaque sector, which has no terms itself: the terms behind it. Its displacement is some number,
        the same wherever the amplitude is the same (0: none), such as a bias seen through a linear map; it is
        none if these sum to zero.
    """

    amplitude: Tensor
    terms: Terms
    origins: tuple[Terms, ...] = ()

    def map(self, function: Any) -> Sector:
        """Apply a movement of elements to amplitude and unknowns alike."""
        terms = tuple((c, function(rows)) for c, rows in self.terms)
        return Sector(function(self.amplitude), terms, self.origins)


Shift = dict[Key, Sector]


def reshaped(sector: Sector, view: tuple[int, ...] | torch.Size) -> Sector:
    """Reshape a sector, without copying where the shape is its own."""
    return sector if sector.amplitude.shape == view else sector.map(lambda t: t.reshape(view))


def expanded(x: Shift, shape: torch.Size) -> Shift:
    """Amplitudes in another shape."""
    return {key: sector.map(lambda t: t.expand(shape)) for key, sector in x.items()}


def combined(x: Shift, y: Shift, node: fx.Node) -> Shift:
    """Displacement of a sum."""
    out = dict(x)
    for key, sector in y.items():
        mine = out.get(key)
        if mine is None:
            out[key] = sector
        elif torch.equal(mine.amplitude, sector.amplitude):
            out[key] = Sector(mine.amplitude, mine.terms + sector.terms, mine.origins + sector.origins)
        else:  # the same input seen at other positions: an amplitude of its own
            out[(*key, node.name)] = sector
    return out


def masked(x: Shift, zeros: Bool[Tensor, "*shape"]) -> Shift:
    """Displacement of what is set to a number where `zeros` is true: there is none there."""
    if not bool(zeros.any()):
        return x

    def of(sector: Sector) -> Sector:
        at = zeros.expand(sector.amplitude.shape)
        amplitude = torch.where(at, 0, sector.amplitude) if sector.origins else sector.amplitude
        return Sector(amplitude, tuple((c, torch.where(at, 0, rows)) for c, rows in sector.terms), sector.origins)

    return {key: of(sector) for key, sector in x.items()}


def mixed_by(matrix: Float[Tensor, "out in"], sector: Sector, channel: int) -> Sector | None:
    """What a constant matrix (out, in) makes of a displacement along `channel`; None if that takes too many terms.

    All that it mixes has to have the same amplitude. Each output's entries of one value are counted through: the first
    of each make a term, and so do the second.
    """
    amplitude = sector.amplitude.movedim(channel, -1)
    if sector.origins or not matrix.isfinite().all() or not bool((amplitude == amplitude[..., :1]).all()):
        return None
    out: list[tuple[Fraction, Tensor]] = []
    rows = [(c, r.movedim(channel, -1)) for c, r in sector.terms]
    for value in matrix.unique().tolist():
        at = matrix == value
        for slot in range(int(at.sum(1).max()) if value else 0):
            mine = at & (at.cumsum(1) == slot + 1)
            source, there = mine.int().argmax(1), mine.any(1)
            for c, r in rows:
                out.append((c * Fraction(value), torch.where(there, r[..., source], 0).movedim(-1, channel)))
            if len(out) > MOST_TERMS:
                return None
    shape = [*amplitude.shape[:-1], len(matrix)]
    return Sector(amplitude[..., :1].expand(shape).movedim(-1, channel), tuple(out))


def multiplied(x: Shift, factor: float) -> Shift:
    """Displacement of a multiple."""
    share = Fraction(factor)
    return {k: Sector(s.amplitude, tuple((c * share, r) for c, r in s.terms), s.origins) for k, s in x.items()}


def source_of(node: fx.Node) -> str:
    """Name of the tensor that a linear map reads: parallel weights on one input share amplitudes."""
    return node.all_input_nodes[0].name


def sets_along(amplitude: Variables, dims: tuple[int, ...]) -> Variables:
    """Number of what stands along `dims`, which have length 1 then: the same where the same amplitudes do."""
    rest = [d for d in range(amplitude.dim()) if d not in dims]
    rows = amplitude.permute(*rest, *dims).reshape(math.prod(amplitude.shape[d] for d in rest), -1)
    return torch.from_numpy(distinct_rows(rows.numpy())[1]).reshape(
        [1 if d in dims else n for d, n in enumerate(amplitude.shape)]
    )


def sets_under(amplitude: Variables) -> Variables:
    """Return one new amplitude per distinct set of amplitudes under a window."""
    flat = amplitude.reshape(-1, amplitude.shape[-1]).numpy()
    _, inverse = distinct_rows(flat)
    return torch.from_numpy(inverse.reshape(amplitude.shape[:-1]))


def paired(amplitude: Variables, other: Variables) -> Variables:
    """One new amplitude, from 1 on, for each distinct pair."""
    return narrow_pairs(amplitude, other).expand(amplitude.shape)


def narrow_pairs(amplitude: Variables, other: Variables) -> Variables:
    """Those of `paired`; dims along which neither differs have length 1."""
    a, b = torch.broadcast_tensors(*geometry.narrow(amplitude), *geometry.narrow(other))
    numbers = torch.from_numpy(numbered_pairs(a.flatten().numpy(), b.flatten().numpy()))
    return (numbers + 1).reshape(a.shape)
