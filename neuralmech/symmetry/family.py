"""Families of charges as data: which entries of which parameters a charge is made of, and where it lives."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.symmetry.names import FamilyName

Axis = Literal["entries", "rows", "columns"]
Kind = Literal["translation", "diagonal", "matrix"]


@dataclass(frozen=True, repr=False)
class Term:
    """One parameter's part in the generators of a family, in factored form.

    A weight of shape (O, I/groups, …) is never written out entry by entry: its part of a diagonal generator
    is constant along rows (first dimension) or columns (groups × second dimension); its part of a
    translation is one number per row, the same for each of the `width` columns, which are charges of their
    own.

    Attributes
    ----------
    parameter
        Name in ``model.named_parameters()``.
    axis
        What `coefficients` runs over.
    coefficients
        Sparse, shape (components, length of the axis).
    first
        Index of each component's first charge.
    width
        Charges per component: the number of entries in a row for a translated weight, otherwise 1.
    groups
        Groups of a grouped convolution.
    view
        Shape in which rows and columns are told, where it is not the parameter's own: a stack of matrices (E, O, I) is
        E groups of a matrix (E·O, I).
    """

    parameter: str
    axis: Axis
    coefficients: sparse.csr_array
    first: Int64[NDArray, " components"]
    width: int = 1
    groups: int = 1
    view: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return f"<{self.axis} of {self.parameter} in {self.coefficients.shape[0]:,} components>"

    def shape(self, shapes: Mapping[str, Sequence[int]]) -> Sequence[int]:
        """Shape in which rows and columns are told; `shapes` are the parameters' own."""
        return self.view or shapes[self.parameter]


@dataclass(frozen=True, repr=False)
class Family:
    """All charges of one kind.

    Attributes
    ----------
    name
        ``translation``: charge ⟨a, θ⟩. ``scale``, ``rescale``: charge Σ_j m_j θ_j² with M = diag(m); all m_j of
        one sign for scale.
    sites, channels
        For each charge: the layers whose parameters it moves, and its number there.
    """

    name: FamilyName
    terms: tuple[Term, ...]
    sites: tuple[str, ...]
    channels: Int64[NDArray, " charges"]

    def __len__(self) -> int:
        return len(self.sites)

    def __repr__(self) -> str:
        sites = len(set(self.sites))
        return f"<{self.name}: {len(self):,} charges at {sites:,} site{'s'[: sites != 1]}>"

    @property
    def is_translation(self) -> bool:
        """Whether the charges are linear in the parameters, ⟨a, θ⟩; all others are quadratic."""
        return self.name == "translation"

    @property
    def kind(self) -> Kind:
        """Of the generators: a vector a, a diagonal matrix, or a block of a symmetric one."""
        return "translation" if self.is_translation else "diagonal"

    def part(self, charge: int, site: str, channel: int, shapes: Mapping[str, Sequence[int]]) -> tuple[str, int]:
        """A parameter and its flat entry, in the middle of the first term that holds the charge, at a site and channel.

        Here the number of the charge says all.
        """
        for term in self.terms:
            holds = (term.first <= charge) & (charge < term.first + term.width)
            component = np.flatnonzero(holds & (np.diff(term.coefficients.indptr) > 0))
            if len(component):
                row, first = int(component[0]), int(term.first[component[0]])
                elements = term.coefficients.indices[term.coefficients.indptr[row] : term.coefficients.indptr[row + 1]]
                of_element = axis_entries(term.axis, term.groups, term.shape(shapes))[elements[len(elements) // 2]]
                return term.parameter, int(of_element[charge - first if term.width > 1 else len(of_element) // 2])
        raise AssertionError(f"{self.name} charge {charge} has no parameters")

    def rewritten(self, terms: Callable[[Sequence[Term]], Sequence[Term]], block: Callable[[Any], Any]) -> Family:
        """Replace the terms by `terms(terms)` and, of a matrix-valued family, each block by `block(block)`."""
        return replace(self, terms=tuple(terms(self.terms)))

    def in_metric(self, ratios: Mapping[str, float]) -> Family:
        """The charges in the metric 1/r of learning rates rη: generators M/r, of a translation a/r."""
        return self.rewritten(
            lambda terms: [replace(t, coefficients=t.coefficients / ratios[t.parameter]) for t in terms],
            lambda block: replace(block, sign=block.sign / ratios[block.parameter]),
        )

    def magnitudes(self) -> Family:
        """The same with |M| (|a|) in the place of the generators."""
        return self.rewritten(
            lambda terms: [replace(t, coefficients=abs(t.coefficients)) for t in terms],
            lambda block: replace(block, sign=abs(block.sign)),
        )

    def range_of(
        self, values: Mapping[str, float]
    ) -> tuple[Float64[NDArray, " charges"], Float64[NDArray, " charges"]]:
        """The least and the largest of numbers of each charge's parameters: (charges,) each."""
        least, largest = np.full(len(self), np.inf), np.full(len(self), -np.inf)
        for name, charges in self.members():
            least[charges] = np.minimum(least[charges], values[name])
            largest[charges] = np.maximum(largest[charges], values[name])
        return least, largest

    def traces(self, shapes: Mapping[str, Sequence[int]]) -> Float64[NDArray, " charges"]:
        """Σ_j m_j of each charge, the number of its parameters where all m_j are 1: (charges,)."""
        out = np.zeros(len(self))
        for term in self.terms:
            each = math.prod(term.shape(shapes)) // term.coefficients.shape[1]  # entries of an element of the axis
            np.add.at(out, term.first, each * term.coefficients.sum(axis=1))
        return out

    def members(self) -> Iterator[tuple[str, Int64[NDArray, " of_parameter"]]]:
        """Parameters, each with charges that it is part of."""
        for term in self.terms:
            firsts = term.first[np.diff(term.coefficients.indptr) > 0]
            yield term.parameter, (firsts[:, None] + np.arange(term.width)).ravel()

    def seen_as(self, views: Mapping[str, Sequence[int]]) -> Family:
        """Tell rows and columns of the parameters in `views` in the shapes given there, not in their own."""
        mine = (views.get(t.parameter) for t in self.terms)
        terms = (replace(t, view=tuple(v)) if v else t for t, v in zip(self.terms, mine, strict=True))
        return replace(self, terms=tuple(terms))

    def without(self, sites: Collection[str]) -> Family:
        """The charges at all other sites."""
        kept = np.array([site not in sites for site in self.sites], dtype=bool)
        number, terms = np.cumsum(kept) - 1, []
        for term in self.terms:
            mine = np.flatnonzero(kept[term.first])
            if len(mine):
                own = replace(term, coefficients=term.coefficients[mine], first=number[term.first[mine]])
                terms.append(own)
        names = tuple(site for site, keeps in zip(self.sites, kept, strict=True) if keeps)
        return replace(self, terms=tuple(terms), sites=names, channels=self.channels[kept])

    def site_counts(self) -> dict[str, int]:
        """Site → number of charges, in order."""
        counts: dict[str, int] = {}
        for site in self.sites:
            counts[site] = counts.get(site, 0) + 1
        return counts


def offsets(shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Where each parameter starts in the flattened parameter vector."""
    starts = np.cumsum([0, *(math.prod(s) for s in shapes.values())])
    return dict(zip(shapes, starts.tolist(), strict=False))


def generator_matrix(family: Family, shapes: Mapping[str, Sequence[int]]) -> sparse.csr_array:
    """Write a family's generators out in full: sparse, shape (charges, parameters)."""
    starts = offsets(shapes)
    total = sum(math.prod(s) for s in shapes.values())
    rows, columns, data = [], [], []
    for term in family.terms:
        part = term.coefficients.tocoo()
        every = axis_entries(term.axis, term.groups, term.shape(shapes))
        entries = every[part.col]  # (nonzeros, entries per axis element)
        charges = np.repeat(term.first[part.row][:, None], entries.shape[1], axis=1)
        if term.width > 1:
            charges = charges + np.arange(term.width)
        rows.append(charges.ravel())
        columns.append((starts[term.parameter] + entries).ravel())
        data.append(np.repeat(part.data, entries.shape[1]))
    triple = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    matrix = sparse.csr_array(triple, shape=(len(family), total))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def axis_entries(axis: Axis, groups: int, shape: Sequence[int]) -> Int64[NDArray, "elements entries"]:
    """Flat indices of a parameter's entries under each element of an axis."""
    flat = np.arange(math.prod(shape))
    if axis == "entries":
        return flat[:, None]
    if axis == "rows":
        return flat.reshape(shape[0], -1)
    grid = flat.reshape(groups, shape[0] // groups, shape[1], -1)
    return grid.transpose(0, 2, 1, 3).reshape(groups * shape[1], -1)


def layer_names(names: Iterable[str]) -> str:
    """Join the layers' names; a residual stream's many writers are shortened."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    if len(layers) > 3:
        return f"{layers[0]} + … + {layers[-1]} ({len(layers)} layers)"
    return " + ".join(layers)
