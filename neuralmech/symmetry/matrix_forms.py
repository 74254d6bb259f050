"""Evaluate matrix-valued charges: Gram matrices of rows and columns, batched over heads and layers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.symmetry.charges import Layout
from neuralmech.symmetry.matrix import Block, MatrixFamily, MatrixSite

FULL = 16  # sites up to this many channels are measured entry by entry; larger ones on their diagonal
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 2), (1, 4))  # the two vectors of each signal, out of (θ, u, g, g, b)

View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Sites of one structure: views of a flat vector as (sites, channels, entries), one per block, with signs."""

    sites: tuple[int, ...]
    size: int
    views: tuple[tuple[View, int], ...]

    def gram(self, x: Tensor, y: Tensor) -> Tensor:
        """½ Σ_blocks sign·(X Yᵀ + Y Xᵀ), shape (sites, channels, channels)."""
        total = sum(sign * (view(x) @ view(y).transpose(-1, -2)) for view, sign in self.views)
        assert isinstance(total, Tensor)
        return total if x is y else 0.5 * (total + total.transpose(-1, -2))

    def diagonal(self, x: Tensor, y: Tensor) -> Tensor:
        """Diagonal of `gram`, shape (sites, channels)."""
        total = sum(sign * (view(x) * view(y)).sum(dim=-1) for view, sign in self.views)
        assert isinstance(total, Tensor)
        return total


class MatrixForms:
    """θᵀSθ, uᵀSu, … for the entries of every site's charge, and the Frobenius norms of the charges.

    Parameters
    ----------
    family
        All sites.
    layout
        Where parameters lie in the flat vectors.
    full
        Sites of at most this many channels are evaluated entry by entry (i ≤ j), larger ones on the diagonal.
    """

    def __init__(self, family: MatrixFamily, layout: Layout, device: torch.device, full: int = FULL) -> None:
        entries = [_kept(site, full) for site in family.matrices]
        self.sites = tuple(s.name for s, (i, _) in zip(family.matrices, entries, strict=True) for _ in i)
        self.rows = np.concatenate([i for i, _ in entries])
        self.columns = np.concatenate([j for _, j in entries])
        self.names = tuple(site.name for site in family.matrices)
        firsts = np.cumsum([0, *(len(i) for i, _ in entries)])
        self._batches = []
        for batch in _batches(family, layout, device):
            i, j = entries[batch.sites[0]]
            places = np.concatenate([np.arange(firsts[s], firsts[s + 1]) for s in batch.sites])
            at = [torch.as_tensor(a, device=device) for a in (i, j, places, np.array(batch.sites))]
            self._batches.append((batch, batch.size <= full, *at))

    def __len__(self) -> int:
        return len(self.rows)

    def evaluate(self, vectors: Tensor, out: Tensor, norms: Tensor) -> None:
        """Write the forms of `vectors` (signals, parameters) to `out` (signals, charges), norms to (sites,)."""
        for batch, full, i, j, places, sites in self._batches:
            for signal, (a, b) in enumerate(PAIRS[: len(vectors)]):
                x, y = vectors[a], vectors[b]
                matrix = batch.gram(x, y) if full or signal == 0 else None
                if signal == 0 and matrix is not None:
                    norms.index_copy_(0, sites, torch.linalg.matrix_norm(matrix))
                chosen = batch.diagonal(x, y) if matrix is None else matrix[:, i, j]
                out[signal].index_copy_(0, places, chosen.reshape(-1))


def _kept(site: MatrixSite, full: int) -> tuple[NDArray, NDArray]:
    every = np.arange(site.size)
    return np.triu_indices(site.size) if site.size <= full else (every, every)  # type: ignore[return-value]


def _batches(family: MatrixFamily, layout: Layout, device: torch.device) -> list[Batch]:
    """Put together the sites whose blocks have the same shapes."""
    alike: dict[tuple, list[int]] = defaultdict(list)
    for k, site in enumerate(family.matrices):
        key = tuple((b.axis, b.groups, b.sign, b.index.shape, layout.shapes[b.parameter]) for b in site.blocks)
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
    shape = layout.shapes[block.parameter]
    adjacent = {"rows": math.prod(shape[1:]), "columns": math.prod(shape[2:]), "entries": 1}[block.axis]
    entries = block.entries(shape).reshape(*block.index.shape, -1, adjacent)
    return entries + layout.offsets[block.parameter]


def _view(places: NDArray[np.int64], device: torch.device) -> View:
    """A view (sites, channels, entries) of a flat vector; a copy only where the places follow no regular pattern."""
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
