"""Symmetries described by hand, for models that cannot be traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike
from scipy import sparse
from torch import Tensor, nn

from neuralmech.errors import UserError
from neuralmech.losses import LossLike
from neuralmech.symmetry.family import Family, Term
from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.names import FAMILIES, FamilyName
from neuralmech.verification.verify import verify


@dataclass(frozen=True)
class SymmetryGroup:
    r"""A symmetry that the user claims.

    Attributes
    ----------
    family
        ``translation``: θ ↦ θ + αa. ``scale`` and ``rescale``: θ_j ↦ exp(α m_j) θ_j.
    site
        A name for tables.
    generators
        Parameter name → a or m on that parameter, of shape (charges, \*parameter shape) or broadcastable to it.

    Examples
    --------
    The last layer's weight columns, and its bias, under softmax:

    >>> import torch
    >>> eye = torch.eye(4)[:, None, :]                      # (charges, 1, columns): all rows of one column
    >>> group = SymmetryGroup("translation", "head", {"head.weight": eye})
    """

    family: FamilyName
    site: str
    generators: Mapping[str, ArrayLike]


def believe(
    model: nn.Module,
    groups: Sequence[SymmetryGroup],
    inputs: Shaped[Tensor, "batch ..."] | tuple[Shaped[Tensor, "*shape"], ...],
    targets: Shaped[Tensor, "batch ..."],
    loss: LossLike = "cross_entropy",
) -> Symmetries:
    """Verify claimed groups on a batch and return them as `Symmetries`.

    Raises
    ------
    UserError
        If there is no group, or one names an unknown family or parameter, has the wrong shape, moves nothing, or does
        not hold.
    """
    if not groups:
        raise UserError("believe: no group is given; give at least one SymmetryGroup")
    claimed = _assemble(model, groups)
    table = verify(model, inputs, targets, claimed, loss, conditions=("exact",)).table
    for row in table[~table["holds"]].to_dict("records"):
        raise UserError(
            f"SymmetryGroup {row['site']!r} does not hold: the {row['family']} changes the loss by "
            f"{row['exact_finite']:.1e} and meets the gradient at {row['exact_gradient']:.1e}; correct its generators"
        )
    return claimed


def _assemble(model: nn.Module, groups: Sequence[SymmetryGroup]) -> Symmetries:
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    families = {}
    for name in FAMILIES:
        mine = [group for group in groups if group.family == name]
        if mine:
            families[name] = _family(name, mine, shapes)
    unknown = [group.family for group in groups if group.family not in FAMILIES]
    if unknown:
        raise UserError(f"SymmetryGroup: family {unknown[0]!r} is unknown; choose one of {', '.join(FAMILIES)}")
    covered = {term.parameter for family in families.values() for term in family.terms}
    uncovered = {name: "no hand-written group contains it" for name in shapes if name not in covered}
    return Symmetries(families, shapes, uncovered, ())


def _family(name: FamilyName, groups: Sequence[SymmetryGroup], shapes: Mapping[str, tuple[int, ...]]) -> Family:
    terms, sites, channels = [], [], []
    for group in groups:
        entries = {
            p: _entries(group, p, np.asarray(value, dtype=float), shapes) for p, value in group.generators.items()
        }
        count = max((len(rows) for rows in entries.values()), default=0)
        moved = np.zeros(count, dtype=bool)
        for rows in entries.values():
            moved |= rows.any(axis=1)
        if not moved.all() or not count:
            zero = f"generator {np.flatnonzero(~moved)[0]} is zero" if count else "there is no generator"
            raise UserError(f"SymmetryGroup {group.site!r}: {zero}: it moves nothing and is no symmetry; leave it out")
        first = len(sites) + np.arange(count)
        for parameter, rows in entries.items():
            full = np.broadcast_to(rows, (count, rows.shape[1]))
            terms.append(Term(parameter, "entries", sparse.csr_array(full), first))
        sites += [group.site] * count
        channels += range(count)
    return Family(name, tuple(terms), tuple(sites), np.array(channels, dtype=np.int64))


def _entries(
    group: SymmetryGroup, parameter: str, value: np.ndarray, shapes: Mapping[str, tuple[int, ...]]
) -> np.ndarray:
    if parameter not in shapes:
        raise UserError(f"SymmetryGroup {group.site!r}: the model has no parameter {parameter!r}")
    shape = shapes[parameter]
    try:
        full = np.broadcast_to(value, (value.shape[0] if value.ndim > len(shape) else 1, *shape))
    except ValueError:
        raise UserError(
            f"SymmetryGroup {group.site!r}: generator of shape {value.shape} does not fit {parameter} {shape}; "
            "give (charges, *parameter shape)"
        ) from None
    return full.reshape(len(full), -1)
