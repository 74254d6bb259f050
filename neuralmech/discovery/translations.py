"""From the null space of shifts to the charges of translations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.discovery.components import Signature, narrowed, ordered, part_of
from neuralmech.discovery.shift import ShiftAlgebra
from neuralmech.discovery.system import Solution
from neuralmech.symmetry.family import Family, Term

Shapes = Mapping[str, torch.Size]


def translation_terms(algebra: ShiftAlgebra, solution: Solution, shapes: Shapes) -> list[Term]:
    """What each component of the null space displaces of each parameter; charges are not numbered yet."""
    parts: list[Term] = []
    for name, shape in shapes.items():
        if name in algebra.entry_ids:
            axis, ids = narrowed(algebra.entry_ids[name])
            parts.append(part_of(name, axis, solution.values(ids), 1))
        elif name in algebra.weights:
            axis, ids = algebra.weights[name]
            groups = ids.size // max(shape[1], 1) if axis == "columns" else 1
            parts.append(part_of(name, axis, solution.values(ids), math.prod(shape) // max(ids.size, 1), groups))
        if name in algebra.uniform:
            parts.append(part_of(name, "columns", solution.values(algebra.uniform[name]), 1))
        if name in algebra.redundant:
            parts.append(part_of(name, "entries", _along_normals(algebra, name, solution), 1))
    return parts


def translation_family(parts: Sequence[Term], components: int) -> Family:
    """Charges of all translations: per component of the null space, one for each column of its weights."""
    order, signatures, firsts, _ = ordered(parts, components)
    widths = np.ones(components, dtype=np.int64)
    for part in parts:
        widths[np.unique(part.coefficients.tocoo().row)] = part.width
    widths = widths[order]
    first = np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(np.int64)
    sites = [_translation_site(s) for s in signatures]
    terms = [replace(p, coefficients=rows, first=first) for p in parts if (rows := p.coefficients[order]).nnz]
    channels = _translation_channels(sites, widths, firsts)
    return Family("translation", tuple(terms), tuple(np.repeat(sites, widths).tolist()), channels)


def _along_normals(algebra: ShiftAlgebra, name: str, solution: Solution) -> sparse.csr_array:
    """What a weight's redundant displacements are entry by entry: sparse, shape (entries, components)."""
    found = algebra.redundant[name]
    _, outputs, taps = found.ids.shape
    normals = sparse.coo_array(found.normals[:, :-1])
    o, t = (g.ravel()[:, None] for g in np.meshgrid(np.arange(outputs), np.arange(taps), indexing="ij"))
    unknown = (normals.row * outputs + o) * taps + t
    channels = normals.shape[1]
    is_right = algebra.weights[name][0] == "columns"
    entry = normals.col * outputs + o if is_right else (o * channels + normals.col) * taps + t
    data = np.broadcast_to(normals.data, unknown.shape)
    triple = (data.ravel(), (entry.ravel(), unknown.ravel()))
    spread = sparse.csr_array(triple, shape=(channels * outputs * taps, found.ids.size))
    return sparse.csr_array(spread @ solution.values(found.ids))


def _translation_channels(sites: list[str], widths: NDArray, firsts: list[int]) -> NDArray[np.int64]:
    """Number the charges: by entry for single parameters, by column (on from component to component) else."""
    taken: dict[str, int] = {}
    wide = {site for site, width in zip(sites, widths.tolist(), strict=True) if width > 1}
    channels = []
    for site, width, first in zip(sites, widths.tolist(), firsts, strict=True):
        start = taken.get(site, 0) if site in wide else first
        taken[site] = start + width
        channels.append(np.arange(start, start + width))
    return np.concatenate(channels or [np.zeros(0)]).astype(np.int64)


def _translation_site(signature: Signature) -> str:
    names = [(name, sign) for name, sign in signature]
    text = names[0][0] + "".join(f" {'+' if sign > 0 else '-'} {name}" for name, sign in names[1:3])
    return text if len(names) <= 3 else f"{text} … ({len(names)} parameters)"
