"""Angular momenta of rotations between consecutive linear maps, whose generators are antisymmetric."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.charges.matrix_forms import FULL, Batch, batches_of
from neuralmech.charges.step import Step
from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.matrix import MatrixFamily, MatrixSite

# With A_ij of (Aθ)_i = θ_j, (Aθ)_j = −θ_i over all blocks of a site, and the momentum buffer b after the step:
#   value ⟨b, Aθ⟩, residual ⟨g, Aθ⟩, drive_buffer ⟨b, Au⟩, extent |b_ij||θ_ij| (of channels i and j), which is as
#   large as value could be. Of rules other than SGD, b is the rule's own update.
SIGNALS = ("value", "residual", "drive_buffer", "extent")


class Rotations:
    """Angular momenta of all sites of a matrix-valued family.

    Parameters
    ----------
    family
        The sites.
    layout
        Where parameters lie in the flat vectors.
    full
        Of sites of up to this many channels all pairs (i < j) are evaluated, of larger ones neighbours (i, i + 1).
    momentum
        Name of the step's vector that takes the buffer's place, see `neuralmech.charges.step.VECTORS`.

    Attributes
    ----------
    sites, rows, columns
        Of each angular momentum.
    """

    def __init__(
        self, family: MatrixFamily, layout: Layout, device: torch.device, full: int = FULL, momentum: str = "buffer"
    ) -> None:
        self._momentum = momentum
        pairs = [_pairs(site, full) for site in family.matrices]
        self.sites = tuple(s.name for s, (i, _) in zip(family.matrices, pairs, strict=True) for _ in i)
        self.rows, self.columns = (np.concatenate([p[k] for p in pairs]) for k in (0, 1))
        firsts = np.cumsum([0, *(len(i) for i, _ in pairs)])
        self._batches = []
        for batch in batches_of(family, layout, device):
            places = np.concatenate([np.arange(firsts[s], firsts[s + 1]) for s in batch.sites])
            at = (torch.as_tensor(a, device=device) for a in (*pairs[batch.sites[0]], places))
            self._batches.append(_PlacedPairs(batch, *at))

    def __len__(self) -> int:
        return len(self.rows)

    def evaluate(self, step: Step, out: Float64[Tensor, "signals pairs"]) -> None:
        """Write `SIGNALS` to `out`."""
        for placed in self._batches:
            batch = placed.batch
            names = (self._momentum, "theta", "gradient", "update")
            b, theta, g, u = (batch.parts(step, name) for name in names)
            squares = [_total((x * x).sum(dim=-1) for x in of) for of in (b, theta)]
            both = [s[:, placed.rows] + s[:, placed.columns] for s in squares]
            found = [placed.antisymmetric(x, y) for x, y in ((b, theta), (g, theta), (b, u))]
            for row, values in zip(out, (*found, (both[0] * both[1]).sqrt()), strict=True):
                row.index_copy_(0, placed.places, values.reshape(-1))


class _PlacedPairs(NamedTuple):
    """Sites alike, their pairs, and where these go."""

    batch: Batch
    rows: Tensor
    columns: Tensor
    places: Tensor

    def antisymmetric(self, x: list[Tensor], y: list[Tensor]) -> Float64[Tensor, "sites pairs"]:
        """Σ_blocks |sign|·(x_i·y_j − x_j·y_i)."""
        signs = (abs(sign) for _, sign in self.batch.views)
        total = _total(s * (a @ b.transpose(-1, -2)) for s, a, b in zip(signs, x, y, strict=True))
        return total[:, self.rows, self.columns] - total[:, self.columns, self.rows]


def _pairs(site: MatrixSite, full: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if site.size <= full:
        return np.triu_indices(site.size, 1)  # type: ignore[return-value]
    return np.arange(site.size - 1), np.arange(1, site.size)


def _total(terms: Iterable[Tensor]) -> Tensor:
    first, *others = terms
    return sum(others, start=first)
