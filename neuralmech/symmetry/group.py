"""The symmetries of a model: its families of charges, and what is in none of them, with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from neuralmech.symmetry.factored import covered_entries
from neuralmech.symmetry.family import Family, generator_matrix
from neuralmech.symmetry.matrix import matrix_families
from neuralmech.words import table_of

TINY = 1e-3  # an epsilon under a root or below a norm: the built-in norms' own is no larger


@dataclass(frozen=True)
class Barrier:
    """An operation at which symmetries end because no rule covers it."""

    operation: str
    place: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.operation} ({self.place}{'; ' if self.why else ''}{self.why})"


@dataclass(frozen=True, repr=False)
class Symmetries:
    """What `find_symmetries` returns.

    Attributes
    ----------
    families
        Family name → its charges; families without charges are absent.
    shapes
        Parameter name → shape, in the order of ``model.parameters()``.
    uncovered
        Parameter → why no charge contains it.
    barriers
        Operations at which symmetries end because no rule covers them.
    approximations
        Where symmetries hold up to a small number only: an eps written by hand, a cast to low precision.
    """

    families: Mapping[str, Family]
    shapes: Mapping[str, tuple[int, ...]]
    uncovered: Mapping[str, str]
    barriers: tuple[Barrier, ...]
    approximations: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counts = [
            f"{name}: {len(f):,} at {len(set(f.sites)):,} site{'s'[: len(set(f.sites)) != 1]}"
            for name, f in self.families.items()
        ]
        rest = f"{len(self.uncovered):,} of {len(self.shapes):,} parameters have entries in none; "
        return f"<Symmetries: {', '.join(counts) or 'none'}; {rest}{len(self.barriers):,} barriers>"

    def _repr_html_(self) -> str:
        """For notebooks: a row for each site."""
        rows = [(family, site, f"{n:,}") for family, sites in self.sites.items() for site, n in sites.items()]
        return table_of(("family", "site", "charges"), rows, repr(self))

    @property
    def sites(self) -> dict[str, dict[str, int]]:
        """Family → site → number of charges."""
        return {name: family.site_counts() for name, family in self.families.items()}

    def generators(self) -> dict[str, sparse.csr_array]:
        """Family → sparse matrix (charges × parameters), flattened in the order of ``model.parameters()``.

        A row is the vector a of a translation, the diagonal of M of a scale or rescale symmetry.
        """
        return {
            name: generator_matrix(family, self.shapes)
            for name, family in self.families.items()
            if family.kind != "matrix"
        }

    @property
    def dependent(self) -> dict[str, tuple[int, int]]:
        """Matrix-valued sites with fewer independent laws than entries: the numbers of both."""
        sites = (site for family in matrix_families(self.families.values()) for site in family.matrices)
        counts = {site.name: (site.entries, site.independent(self.shapes)) for site in sites}
        return {name: both for name, both in counts.items() if both[0] != both[1]}

    def without(self, sites: Mapping[str, Collection[str]]) -> Symmetries:
        """The same without some sites of families (family → sites)."""
        left = {name: family.without(sites.get(name, ())) for name, family in self.families.items()}
        return replace(self, families={name: family for name, family in left.items() if len(family)})

    def covered_parameters(self) -> int:
        """Count the scalar parameters that are in at least one charge."""
        return sum(int(np.count_nonzero(mask)) for _, mask in covered_entries(self.families.values(), self.shapes))
