"""Evaluate matrix-valued charges: Gram matrices of rows and columns, batched over heads and layers."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.charges.step import FORMS, Step
from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.matrix import Block, MatrixFamily, MatrixSite, diagonal_family

FULL = 16  # sites up to this many channels are measured entry by entry; larger ones on their diagonal
View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Sites of one structure: views of a flat vector as (sites, channels, entries), one per block, with signs."""

    sites: tuple[int, ...]
    size: int
    views: tuple[tuple[View, float], ...]

    def parts(self, step: Step, name: str) -> list[Float64[Tensor, "sites channels entries"]]:
        """One of the step's vectors, block by block."""
        return [step.vector(name, view) for view, _ in self.views]

    def gram(
        self, x: list[Float64[Tensor, "sites channels entries"]], y: list[Float64[Tensor, "sites channels entries"]]
    ) -> Float64[Tensor, "sites channels channels"]:
        """½ Σ_blocks sign·(X Yᵀ + Y Xᵀ)."""
        total = _total(sign * (a @ b.transpose(-1, -2)) for a, b, (_, sign) in zip(x, y, self.views, strict=True))
        return total if x is y else 0.5 * (total + total.transpose(-1, -2))

    def scratch(
        self, theta: Float[Tensor, " parameters"]
    ) -> tuple[Float64[Tensor, " entries"], Float64[Tensor, "sites channels channels"]]:
        """Room for `charges`: it takes as long to find some as to compute them."""
        widest = max(view(theta).shape[-1] for view, _ in self.views)
        new = functools.partial(torch.empty, dtype=torch.float64, device=theta.device)
        return new(len(self.sites) * self.size * widest), new(len(self.sites), self.size, self.size)

    def charges(
        self,
        theta: Float[Tensor, " parameters"],
        block: Float64[Tensor, " entries"],
        total: Float64[Tensor, "sites channels channels"],
    ) -> Float64[Tensor, "sites channels channels"]:
        """Σ_blocks sign·X Xᵀ in `total`; `block` is scratch."""
        for k, (view, sign) in enumerate(self.views):
            rows = view(theta)
            x = block[: rows.numel()].view(rows.shape).copy_(rows)
            total.baddbmm_(x, x.transpose(-1, -2), beta=min(k, 1), alpha=sign)
        return total


def _total(terms: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, terms)


class MatrixForms:
    """θᵀSθ, uᵀSu, … for the entries of small sites' charges, and the Frobenius norms of all charges.

    Parameters
    ----------
    family
        All sites.
    layout
        Where parameters lie in the flat vectors.
    full
        Sites of at most this many channels are evaluated entry by entry (i ≤ j). Of larger ones only the diagonal
        is wanted, whose charges are like those of other families; see `diagonal`.

    Attributes
    ----------
    sites, rows, columns
        Of each charge, small and large sites in the family's order.
    names
        Of the sites: one Frobenius norm each.
    diagonal
        The large sites' diagonal charges, to be evaluated with those of other families, and put at `places`.
    small
        Parameters of the small sites.
    """

    def __init__(self, family: MatrixFamily, layout: Layout, device: torch.device, full: int = FULL) -> None:
        entries = [_kept(site, full) for site in family.matrices]
        self.sites = tuple(s.name for s, (i, _) in zip(family.matrices, entries, strict=True) for _ in i)
        self.rows = np.concatenate([i for i, _ in entries])
        self.columns = np.concatenate([j for _, j in entries])
        self.names = tuple(site.name for site in family.matrices)
        self.small = {block.parameter for site in family.matrices if site.size <= full for block in site.blocks}
        firsts = np.cumsum([0, *(len(i) for i, _ in entries)])
        self.diagonal = diagonal_family([site for site in family.matrices if site.size > full], layout.shapes)
        large = [np.arange(a, b) for a, b, s in zip(firsts, firsts[1:], family.matrices, strict=False) if s.size > full]
        self.places = np.concatenate([np.zeros(0, dtype=np.int64), *large])
        self._batches: list[_PlacedBatch] = []
        self._scratch: dict[int, tuple[Tensor, Tensor]] = {}
        for batch in batches_of(family, layout, device):
            i, j = entries[batch.sites[0]]
            places = np.concatenate([np.arange(firsts[s], firsts[s + 1]) for s in batch.sites])
            at = (torch.as_tensor(a, device=device) for a in (i, j, places, np.array(batch.sites)))
            self._batches.append(_PlacedBatch(batch, batch.size <= full, *at))

    def __len__(self) -> int:
        return len(self.rows)

    def evaluate(self, step: Step, signals: Sequence[str], out: Float64[Tensor, "signals charges"]) -> None:
        """Write the forms of the small sites' entries to `out`."""
        for placed in self._batches:
            batch, vectors = placed.batch, dict[str, list[Tensor]]()  # each is made once, whatever forms it is in
            for row, signal in enumerate(signals if placed.is_full else ()):
                x, y = (vectors.setdefault(n, vectors.get(n) or batch.parts(step, n)) for n in FORMS[signal][:2])
                found = batch.gram(x, y)[:, placed.rows, placed.columns]
                out[row].index_copy_(0, placed.charges, found.reshape(-1))

    def frobenius(self, theta: Float[Tensor, " parameters"], norms: Float64[Tensor, " sites"]) -> None:
        """Write the norms of the charges at θ to `norms`. Takes the whole matrix of every site."""
        for k, placed in enumerate(self._batches):
            if k not in self._scratch:
                self._scratch[k] = placed.batch.scratch(theta)
            charges = placed.batch.charges(theta, *self._scratch[k])
            norms.index_copy_(0, placed.sites, torch.linalg.matrix_norm(charges))


class _PlacedBatch(NamedTuple):
    """Where what is computed of a batch goes.

    Attributes
    ----------
    is_full
        Whether entries are recorded, not the diagonal alone.
    rows, columns, charges
        Of the recorded entries of a site's matrix, and where all sites' entries go.
    sites
        Where their norms go.
    """

    batch: Batch
    is_full: bool
    rows: Tensor
    columns: Tensor
    charges: Tensor
    sites: Tensor


def _kept(site: MatrixSite, full: int) -> tuple[NDArray, NDArray]:
    every = np.arange(site.size)
    return np.triu_indices(site.size) if site.size <= full else (every, every)  # type: ignore[return-value]


def batches_of(family: MatrixFamily, layout: Layout, device: torch.device) -> list[Batch]:
    """Put together the sites whose blocks have the same shapes."""
    alike: dict[tuple, list[int]] = defaultdict(list)
    for k, site in enumerate(family.matrices):
        key = tuple((b.axis, b.groups, b.sign, b.index.shape, tuple(b.shape(layout.shapes))) for b in site.blocks)
        alike[key].append(k)
    out = []
    for numbers in alike.values():
        sites = [family.matrices[k] for k in numbers]
        views = []
        for blocks in zip(*(site.blocks for site in sites), strict=True):
            places = np.stack([_places(block, layout) for block in blocks])
            views.append((_view(places, device), blocks[0].sign))
        out.append(Batch(tuple(numbers), sites[0].size, tuple(views)))
    return out


def _places(block: Block, layout: Layout) -> NDArray[np.int64]:
    """Indices into the flat vector, shape (channels, count, rows, adjacent entries)."""
    shape = block.shape(layout.shapes)
    adjacent = {"rows": math.prod(shape[1:]), "columns": math.prod(shape[2:]), "entries": 1}[block.axis]
    entries = block.entries(layout.shapes).reshape(*block.index.shape, -1, adjacent)
    return entries + layout.offsets[block.parameter]


def _view(places: NDArray[np.int64], device: torch.device) -> View:
    """A view (sites, channels, entries) of a flat vector; a copy only where the places follow no regular pattern.

    Heads of one layer lie at regular distances, and so do layers of equal shape, but not the heads of all layers: so
    sites are first seen as (layers, heads), for the largest number of heads that fits.
    """
    sites, channels = places.shape[:2]
    for heads in range(sites, 0, -1):
        if sites % heads == 0:
            strides = _strides(places.reshape(sites // heads, heads, *places.shape[1:]))
            if strides is not None:
                shape, offset = (sites // heads, heads, *places.shape[1:]), int(places.flat[0])
                return lambda v: torch.as_strided(v, shape, strides, v.storage_offset() + offset).reshape(
                    sites, channels, -1
                )
    index = torch.as_tensor(places.reshape(-1), device=device)
    return lambda v: v.index_select(0, index).view(sites, channels, -1)


def _strides(places: NDArray[np.int64]) -> Sequence[int] | None:
    """Strides of an array of places, or None if they are not regular."""
    corner = int(places.flat[0])
    strides = [int(places.take(1, axis=d).flat[0]) - corner if n > 1 else 0 for d, n in enumerate(places.shape)]
    regular = corner + sum(np.ix_(*(np.arange(n) * s for n, s in zip(places.shape, strides, strict=True))))
    return strides if min(strides) >= 0 and np.array_equal(regular, places) else None
