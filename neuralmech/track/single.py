"""Which single parameters to record beside the charges that they are part of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import sparse

from neuralmech.record.schema import FamilyLayout
from neuralmech.symmetry.family import Family, axis_entries
from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.matrix import MatrixFamily

Single = tuple[str, int, int]  # parameter, its flat entry, the recorded charge's column


def single_parameters(
    families: Mapping[str, Family],
    layouts: Mapping[str, FamilyLayout],
    kept: sparse.csr_array | None,
    layout: Layout,
    count: int,
) -> dict[str, list[Single]]:
    """Up to `count` parameters of each family: of evenly spread recorded charges, one in the middle of each.

    `kept` (recorded × all charges, families one after the other) says what is recorded where that is not all.
    """
    out, row, first = {}, 0, 0
    for name, recorded in layouts.items():
        family, size = families[name], len(recorded.sites)
        out[name] = []
        for c in np.unique(np.linspace(0, size - 1, min(count, size)).round().astype(int)).tolist():
            if isinstance(family, MatrixFamily):
                place = _of_matrix(family, recorded, c, layout)
            else:
                place = _of_charge(family, c if kept is None else _middle(kept, row + c) - first, layout)
            out[name].append((*place, c))
        row, first = row + size, first + len(family)
    return out


def _middle(matrix: sparse.csr_array, row: int) -> int:
    """Column of the middle nonzero entry of a row."""
    columns = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return int(columns[len(columns) // 2])


def _of_charge(family: Family, charge: int, layout: Layout) -> tuple[str, int]:
    """A parameter in the middle of the first term that holds the charge."""
    for term in family.terms:
        holds = (term.first <= charge) & (charge < term.first + term.width) & (np.diff(term.coefficients.indptr) > 0)
        component = np.flatnonzero(holds)
        if len(component):
            element = _middle(term.coefficients, int(component[0]))
            of_element = axis_entries(term.axis, term.groups, term.shape(layout.shapes))[element]
            offset = charge - int(term.first[component[0]]) if term.width > 1 else len(of_element) // 2
            return term.parameter, int(of_element[offset])
    raise AssertionError(f"{family.name} charge {charge} has no parameters")


def _of_matrix(family: MatrixFamily, recorded: FamilyLayout, column: int, layout: Layout) -> tuple[str, int]:
    """A parameter in the middle of the channel of the site's first block."""
    site = next(m for m in family.matrices if m.name == recorded.sites[column])
    block = site.blocks[0]
    entries = block.entries(layout.shapes)[int(recorded.channels[column])]
    return block.parameter, int(entries[len(entries) // 2])
