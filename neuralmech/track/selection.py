"""Which charges to record: all, the sum over each site, or a sample of each site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy import sparse

from neuralmech.record.schema import FamilyLayout


def select(
    layouts: Mapping[str, FamilyLayout], kind: str, sample: int
) -> tuple[dict[str, FamilyLayout], sparse.csr_array | None]:
    """What is left of the families, and the matrix (kept × charges) that makes it; None keeps all.

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
        return dict(layouts), None
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
            out[name] = replace(
                layout, sites=tuple(names), channels=np.zeros(len(names), dtype=np.int64), partners=None
            )
        else:
            chosen = np.concatenate([m[_spread(len(m), sample)] for m in members])
            place = (np.arange(len(chosen)), chosen)
            block = sparse.csr_array((np.ones(len(chosen)), place), shape=(len(chosen), len(sites)))
            partners = None if layout.partners is None else np.asarray(layout.partners)[chosen]
            kept = tuple(layout.sites[i] for i in chosen)
            out[name] = replace(layout, sites=kept, channels=np.asarray(layout.channels)[chosen], partners=partners)
        blocks.append(block)
    return out, sparse.csr_array(sparse.block_diag(blocks)) if blocks else None


def _trace(layout: FamilyLayout) -> np.ndarray:
    if layout.partners is None:
        return np.ones(len(layout.sites))
    return (np.asarray(layout.channels) == np.asarray(layout.partners)).astype(float)


def _spread(count: int, wanted: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))
