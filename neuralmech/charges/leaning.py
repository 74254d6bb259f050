"""How far a learning rule's update leans on the generators of symmetries, site by site."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float64
from scipy import sparse
from torch import Tensor

from neuralmech.charges.forms import Forms
from neuralmech.charges.reference import SparseRows
from neuralmech.charges.step import Step
from neuralmech.symmetry.family import Family
from neuralmech.symmetry.layout import Layout


class Leaning:
    """√[Σ_c (θᵀS_c v)² / Σ_c θᵀ|S_c|θ·vᵀ|S_c|v] over the charges of each site, a cosine between 0 and 1.

    v is the rule's update without decoupled weight decay. For a translation charge it is ⟨a, v⟩ by √(Σ|a|·Σ|a|v²), of a
    matrix-valued charge the diagonal counts. 0 means that the rule keeps the symmetry: its steps are orthogonal to the
    generators, as gradients are. By Cauchy and Schwarz it is at most 1.

    Attributes
    ----------
    sites
        Family → names of its sites, in the order of the output.
    """

    def __init__(self, families: Mapping[str, Family], layout: Layout, device: torch.device) -> None:
        sizes = {name: family.magnitudes() for name, family in families.items()}
        self._work = Forms(families, layout, device, ("rule_work",), full=0)
        self._sizes = Forms(sizes, layout, device, ("magnitude", "rule_magnitude"), full=0)
        self.sites: dict[str, tuple[str, ...]] = {}
        codes, count = np.zeros(self._work.width, dtype=np.int64), 0
        for name, columns in self._work.columns.items():
            of = self._work.matrix.sites if name == "linear" and self._work.matrix else families[name].sites
            self.sites[name] = tuple(dict.fromkeys(of))
            number = {site: count + i for i, site in enumerate(self.sites[name])}
            codes[columns] = [number[site] for site in of]
            count += len(number)
        self.count, one = count, np.ones(len(codes))
        summed = sparse.csr_array((one, (codes, np.arange(len(codes)))), shape=(count, len(codes)))
        self._per_site = SparseRows(summed, device)
        self._work_out, self._sizes_out, self._products = (
            torch.zeros(n, self._work.width, dtype=torch.float64, device=device) for n in (1, 2, 2)
        )
        self._sums = torch.zeros(2, count, dtype=torch.float64, device=device)

    def evaluate(self, step: Step, out: Float64[Tensor, " sites"]) -> None:
        """Write one number per site to `out`; NaN where nothing moves."""
        step = step.with_rule()
        self._work.evaluate(step, self._work_out)
        self._sizes.evaluate(step, self._sizes_out)
        torch.square(self._work_out[0], out=self._products[0])
        torch.mul(self._sizes_out[0], self._sizes_out[1], out=self._products[1])
        self._per_site.combine(self._products, self._sums)
        torch.div(self._sums[0], self._sums[1], out=out)
        out.sqrt_()

    def sizes(self) -> Float64[Tensor, " sites"]:
        """Σ_c vᵀ|S_c|v (Σ|a|v²) of each site, of the step that was evaluated last."""
        out = torch.zeros(1, self.count, dtype=torch.float64, device=self._sums.device)
        self._per_site.combine(self._sizes_out[1:], out)
        return out[0]
