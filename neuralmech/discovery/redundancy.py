"""Weights whose input is redundant: rows that move along what it has no component along displace the output alike."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import fx

from neuralmech.discovery import geometry
from neuralmech.discovery.engine import Parameter
from neuralmech.discovery.operations import Convolution
from neuralmech.discovery.relations import Normals, none
from neuralmech.discovery.shift import Redundancy, ShiftAlgebra
from neuralmech.discovery.shift_values import CONSTANT, Sector, Shift
from neuralmech.discovery.trace import operation

MANY = 1 << 22  # numbers in displacements along relations of a weight; where there are more, none is told


def redundant_shift(
    algebra: ShiftAlgebra, node: fx.Node, read: tuple[int, int], weight: tuple[int, Any], shape: torch.Size
) -> Shift:
    """Displacement of a map's output by rows of its weight that move along what the input has no component along.

    `read` is the argument that the weight reads and its dim of channels, `weight` the argument that the weight is and
    the weight, (O, C, taps…) or, at the right of a product, (C, O).
    """
    raw: Any = node.args[weight[0]]
    parameter, x = weight[1], node.args[read[0]]
    if not isinstance(parameter, Parameter) or parameter.name in algebra.frozen:
        return {}
    normals = algebra.relations.along(x, read[1])
    found = algebra.redundant.get(parameter.name)
    if found is None:
        is_right = operation(node) not in ("linear", *Convolution.NAMES)
        found = algebra.redundant[parameter.name] = _redundancy(
            algebra, parameter.shape, normals, raw, is_right=is_right
        )
    else:
        rows = [] if normals is None else [row.tobytes() for row in normals.toarray()]
        missing = np.array([row.tobytes() not in rows for row in found.normals.toarray()], dtype=bool)
        algebra.system.zero(found.ids[missing], "read something else, too")
    found.uses += raw is not x  # of what reads itself nothing is told
    channel = 1 if operation(node) in Convolution.NAMES else -1
    terms = []
    for ids, r in zip(found.ids, found.normals[:, -1:].toarray().ravel().tolist(), strict=True):
        terms += [(Fraction(-r), geometry.along(torch.from_numpy(tap.copy()), channel, shape)) for tap in ids.T if r]
    return {CONSTANT: Sector(torch.zeros((), dtype=torch.int64).expand(shape), tuple(terms))} if terms else {}


def _redundancy(
    algebra: ShiftAlgebra, shape: torch.Size, normals: Normals | None, weight: fx.Node, *, is_right: bool
) -> Redundancy:
    """Unknowns for a weight's rows along each relation among the channels that it reads."""
    outputs, channels, taps = (shape[1], shape[0], 1) if is_right else (shape[0], shape[1], shape[2:].numel())
    told = none(channels) if normals is None or normals.nnz * outputs * taps > MANY else normals
    size = (told.shape[0], outputs, taps)
    return Redundancy(told, algebra.system.new(math.prod(size)).reshape(size), weight)
