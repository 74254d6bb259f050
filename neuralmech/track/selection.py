"""Which charges to record (all, the sum over each site, or a sample of each), and which parameters beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import sparse

from neuralmech.record.schema import Classes, FamilyLayout
from neuralmech.symmetry.family import Family
from neuralmech.symmetry.layout import Layout
from neuralmech.track.options import Tracking

Single = tuple[str, int, int]  # parameter, its flat entry, the recorded charge's column


class Recorded(NamedTuple):
    """What is recorded of the families' charges.

    Attributes
    ----------
    layouts
        Of the families, in the order of the charges.
    matrix
        (recorded × charges), makes the one of the others; None where that is all of them.
    """

    layouts: dict[str, FamilyLayout]
    matrix: sparse.csr_array | None


def select(layouts: Mapping[str, FamilyLayout], kind: str, sample: int) -> Recorded:
    """What is left of the families.

    A sum of charges with one λ and η obeys the same laws exactly, driven by the sum of the drives. Of a matrix-valued
    charge the sum is the trace. A sample takes up to `sample` charges of each site, evenly spread.

    Examples
    --------
    >>> layout = FamilyLayout(["a", "a", "b"], [0, 1, 0], ("value",), translation=False)
    >>> kept, matrix = select({"scale": layout}, "site", 0)
    >>> kept["scale"].sites, matrix.toarray().tolist()
    (('a', 'b'), [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """
    if kind == "all":
        return Recorded(dict(layouts), None)
    out, blocks = {}, []
    for name, layout in layouts.items():
        sites = np.array(layout.sites)
        names = list(dict.fromkeys(layout.sites))
        members = [np.flatnonzero(sites == site) for site in names]
        if kind == "site":
            weights = _trace(layout)
            block = sparse.lil_array((len(names), len(sites)))
            for i, m in enumerate(members):
                block[i, m] = weights[m]
            zeros, of_sums = np.zeros(len(names), dtype=np.int64), layout.classes.common(members)
            out[name] = replace(layout, sites=tuple(names), channels=zeros, partners=None, classes=of_sums)
        else:
            chosen = np.concatenate([m[_spread(len(m), sample)] for m in members])
            place = (np.arange(len(chosen)), chosen)
            block = sparse.csr_array((np.ones(len(chosen)), place), shape=(len(chosen), len(sites)))
            kept = tuple(layout.sites[i] for i in chosen)
            partners = None if layout.partners is None else np.asarray(layout.partners)[chosen]
            channels, of_these = np.asarray(layout.channels)[chosen], layout.classes.at(chosen)
            out[name] = replace(layout, sites=kept, channels=channels, partners=partners, classes=of_these)
        blocks.append(block)
    return Recorded(out, sparse.csr_array(sparse.block_diag(blocks)) if blocks else None)


def behind(count: int, matrix: sparse.csr_array) -> sparse.csr_array:
    """The same of columns behind others, which are kept as they are."""
    return sparse.csr_array(sparse.block_diag([sparse.eye_array(count), matrix])) if count else matrix


def classes(family: Family, shapes: Mapping[str, tuple[int, ...]], options: Tracking) -> Classes:
    """What tells a family's charges apart, given κ and the rule of each parameter, and how many each has."""
    kappa = number = entries = None
    rules, ratios = options.rules, options.ratios
    if options.decays is not None:
        least, largest = family.range_of(options.decays)
        kappa = np.where(least == largest, least, np.nan)
    if rules is not None:
        numbers = {rule: n for n, rule in enumerate(dict.fromkeys(rules.values()))}
        least, largest = family.range_of({name: numbers[rule] for name, rule in rules.items()})
        number = np.where(least == largest, least, -1).astype(np.int64)
    if options.entries and family.name == "scale":
        weighed = family if ratios is None else family.in_metric({name: 1 / r for name, r in ratios.items()})
        entries = weighed.traces(shapes)
    return Classes(kappa, number, entries)


def _trace(layout: FamilyLayout) -> np.ndarray:
    if layout.partners is None:
        return np.ones(len(layout.sites))
    return (np.asarray(layout.channels) == np.asarray(layout.partners)).astype(float)


def _spread(count: int, wanted: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))


def single_parameters(
    families: Mapping[str, Family], recorded: Recorded, layout: Layout, count: int
) -> dict[str, list[Single]]:
    """Up to `count` parameters of each family: of evenly spread recorded charges, one in the middle of each."""
    kept = recorded.matrix
    out, row, first = {}, 0, 0
    for name, of in recorded.layouts.items():
        family, size = families[name], len(of.sites)
        out[name] = []
        for c in map(int, _spread(size, count)):
            charge = c if kept is None else _middle(kept, row + c) - first
            out[name].append((*family.part(charge, of.sites[c], int(of.channels[c]), layout.shapes), c))
        row, first = row + size, first + len(family)
    return out


def _middle(matrix: sparse.csr_array, row: int) -> int:
    """Column of the middle nonzero entry of a row."""
    columns = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return int(columns[len(columns) // 2])
