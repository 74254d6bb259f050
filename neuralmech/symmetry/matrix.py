"""The matrix-valued family ``linear``: its sites, charges and generators."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.symmetry.family import Axis, Family, Kind, Term, axis_entries, offsets

Shapes = Mapping[str, Sequence[int]]
Vector = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Block:
    """One parameter's part in a site: rows (of a writer) or columns (of a reader), `count` for each channel.

    Attributes
    ----------
    parameter, axis, groups, view
        As in `Term`.
    index
        Elements of the axis.
    sign
        +1: θ ↦ A θ along the axis; −1: θ ↦ A⁻ᵀ θ. Over r in the metric of learning rates rη.
    """

    parameter: str
    axis: Axis
    index: NDArray[np.int64]
    sign: float
    groups: int = 1
    view: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return f"<{len(self.index):,} channels of {self.parameter}, by {self.axis}>"

    def shape(self, shapes: Shapes) -> Sequence[int]:
        """Shape in which rows and columns are told; `shapes` are the parameters' own."""
        return self.view or shapes[self.parameter]

    def entries(self, shapes: Shapes) -> Int64[NDArray, "channels entries"]:
        """Flat indices of the parameter's entries, channel by channel."""
        return axis_entries(self.axis, self.groups, self.shape(shapes))[self.index].reshape(len(self.index), -1)


@dataclass(frozen=True, repr=False)
class MatrixSite:
    """Channels that may be mixed by any invertible matrix A.

    The charge is the symmetric matrix Q = Σ_blocks sign · B Bᵀ with B the block's entries, (channels, entries
    of each): W₁W₁ᵀ + b₁b₁ᵀ − W₂ᵀW₂ for consecutive linear layers, W_QW_Qᵀ − W_KW_Kᵀ for a head's queries and
    keys. Its diagonal are rescale charges.
    """

    name: str
    size: int
    blocks: tuple[Block, ...]

    def __repr__(self) -> str:
        return f"<{self.name}: {self.size:,} channels, {len(self.blocks):,} blocks>"

    @property
    def entries(self) -> int:
        """Of the symmetric matrix: n(n + 1)/2."""
        return self.size * (self.size + 1) // 2

    def independent(self, shapes: Shapes) -> int:
        """How many of its entries are independent functions of θ.

        With m numbers in each channel Q has rank m at most; if m < n, all its minors of order m + 1 vanish, which
        leaves n(n + 1)/2 − (n − m)(n − m + 1)/2.
        """
        missing = max(0, self.size - sum(block.entries(shapes).shape[1] for block in self.blocks))
        return self.entries - missing * (missing + 1) // 2

    def generator(self, i: int, j: int, shapes: Mapping[str, Sequence[int]]) -> sparse.coo_array:
        """M of ∂_αψ = Mθ for A = exp(α(E_ij + E_ji)/2): symmetric, (parameters, parameters), flattened in order.

        The charge Q_ij is θᵀMθ. It takes no more memory than its few entries, however large the model.
        """
        starts, total = offsets(shapes), sum(math.prod(s) for s in shapes.values())
        rows, columns, data = [], [], []
        for block in self.blocks:
            entries = starts[block.parameter] + block.entries(shapes)
            for a, b in ((i, j), (j, i)):
                rows.append(entries[a])
                columns.append(entries[b])
                data.append(np.full(entries.shape[1], 0.5 * block.sign))
        triple = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
        return sparse.coo_array(triple, shape=(total, total))


@dataclass(frozen=True, repr=False)
class MatrixFamily(Family):
    """All matrix-valued charges; one column per entry (i, j), i ≤ j, of each site's symmetric matrix.

    `channels` holds i and `partners` j; there are no terms, because no generator is diagonal.
    """

    partners: Int64[NDArray, " charges"]
    matrices: tuple[MatrixSite, ...]

    @staticmethod
    def of(matrices: Sequence[MatrixSite]) -> MatrixFamily:
        """Family of some sites."""
        entries = [np.triu_indices(m.size) for m in matrices]
        sites = tuple(m.name for m, (i, _) in zip(matrices, entries, strict=True) for _ in i)
        none = [np.zeros(0, dtype=np.int64)]
        rows, columns = (np.concatenate([*none, *(e[k] for e in entries)]) for k in (0, 1))
        return MatrixFamily("linear", (), sites, rows, columns, tuple(matrices))

    @property
    def kind(self) -> Kind:
        """Of the generators: blocks of a symmetric matrix."""
        return "matrix"

    def part(self, charge: int, site: str, channel: int, shapes: Shapes) -> tuple[str, int]:
        """A parameter and its flat entry, in the middle of the channel in the site's first block.

        The number of a charge says nothing where large sites have their diagonal only.
        """
        block = next(m for m in self.matrices if m.name == site).blocks[0]
        entries = block.entries(shapes)[channel]
        return block.parameter, int(entries[len(entries) // 2])

    def seen_as(self, views: Shapes) -> MatrixFamily:
        """Tell rows and columns of the parameters in `views` in the shapes given there, not in their own."""

        def seen(block: Block) -> Block:
            view = views.get(block.parameter)
            return replace(block, view=tuple(view)) if view else block

        return self.rewritten(lambda terms: terms, seen)

    def rewritten(self, terms: Callable[..., object], block: Callable[[Block], Block]) -> MatrixFamily:
        """Replace each block by `block(block)`; there are no terms."""
        sites = (replace(site, blocks=tuple(map(block, site.blocks))) for site in self.matrices)
        return replace(self, matrices=tuple(sites))

    def without(self, sites: Collection[str]) -> MatrixFamily:
        """The charges at all other sites."""
        return MatrixFamily.of([site for site in self.matrices if site.name not in sites])

    def members(self) -> Iterator[tuple[str, Int64[NDArray, " of_parameter"]]]:
        """As of a `Family`: the blocks of each site."""
        sites = np.array(self.sites)
        for site in self.matrices:
            charges = np.flatnonzero(sites == site.name)
            yield from ((block.parameter, charges) for block in site.blocks)

    def forms(self, shapes: Shapes, x: Vector, y: Vector) -> Vector:
        """½(xᵀMy + yᵀMx) of every charge: (charges,)."""
        return self._over_sites(shapes, lambda b, i, j: 0.5 * b.sign * ((b.x @ b.y.T) + (b.y @ b.x.T))[i, j], x, y)

    def squared_lengths(self, shapes: Shapes, theta: Float64[NDArray, " parameters"]) -> Float64[NDArray, " charges"]:
        """|Mθ|² of every charge."""

        def lengths(b: _Part, i: NDArray, j: NDArray) -> Vector:
            squares = (b.x**2).sum(axis=1)
            return np.where(i == j, squares[i], (squares[i] + squares[j]) / 4)

        return self._over_sites(shapes, lengths, theta, theta)

    def generator(self, shapes: Shapes, charge: int) -> sparse.coo_array:
        """M of one charge, symmetric, (parameters, parameters)."""
        site = next(m for m in self.matrices if m.name == self.sites[charge])
        return site.generator(int(self.channels[charge]), int(self.partners[charge]), shapes)

    def _over_sites(self, shapes: Shapes, of: Callable[..., Vector], x: Vector, y: Vector) -> Vector:
        starts, out = offsets(shapes), [np.zeros(0)]
        for site in self.matrices:
            i, j = np.triu_indices(site.size)
            at = [(b.sign, starts[b.parameter] + b.entries(shapes)) for b in site.blocks]
            out.append(np.sum([of(_Part(sign, x[k], y[k]), i, j) for sign, k in at], axis=0))
        return np.concatenate(out)


def matrix_families(families: Iterable[Family]) -> list[MatrixFamily]:
    """Keep the matrix-valued ones of some families."""
    return [cast(MatrixFamily, family) for family in families if family.kind == "matrix"]


def diagonal_family(sites: Sequence[MatrixSite], shapes: Shapes) -> Family:
    """The diagonal entries Q_ii of some sites' charges: rescale charges, in the form of other diagonal families."""
    terms, names, first = [], [], 0
    for site in sites:
        for block in site.blocks:
            channels, count = block.index.shape
            length = len(axis_entries(block.axis, block.groups, block.shape(shapes)))
            place = (np.repeat(np.arange(channels), count), block.index.ravel())
            part = sparse.csr_array((np.full(channels * count, float(block.sign)), place), shape=(channels, length))
            terms.append(
                Term(block.parameter, block.axis, part, first + np.arange(channels), 1, block.groups, block.view)
            )
        names += [site.name] * site.size
        first += site.size
    channels = [np.zeros(0, dtype=np.int64), *(np.arange(site.size) for site in sites)]
    return Family("linear", tuple(terms), tuple(names), np.concatenate(channels))


class _Part(NamedTuple):
    sign: float
    x: Vector
    y: Vector
