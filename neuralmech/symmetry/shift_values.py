"""What rules do with displacements: add, multiply, stop them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import fx

from neuralmech.symmetry.shift import Sector, Shift, ShiftAlgebra
from neuralmech.symmetry.trace import place


def let_none_pass(algebra: ShiftAlgebra, node: fx.Node, *values: Any) -> None:
    """Forbid every displacement of an operation's inputs."""
    for value in values:
        algebra.forbid(value, f"{node.name} at {place(node)} is not blind to shifts")


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


def multiplied(x: Shift, factor: float) -> Shift:
    """Displacement of a multiple."""
    share = Fraction(factor)
    return {k: Sector(s.amplitude, tuple((c * share, r) for c, r in s.terms), s.origins) for k, s in x.items()}


def source_of(node: fx.Node) -> str:
    """Name of the tensor that a linear map reads: parallel weights on one input share amplitudes."""
    return node.all_input_nodes[0].name
