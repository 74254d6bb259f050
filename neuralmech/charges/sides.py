"""The two sides of rescale charges apart: how large what a symmetry trades off is, and its gradients."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.charges.forms import Forms
from neuralmech.charges.step import Step
from neuralmech.symmetry.family import Family
from neuralmech.symmetry.layout import Layout

# With Q = θᵀSθ = q₊ − q₋ and S diagonal: size θᵀ|S|θ = q₊ + q₋, size_gradient gᵀ|S|g.
SIGNALS = ("size", "size_gradient")


class Sides:
    """`SIGNALS` of all charges of a diagonal family.

    Attributes
    ----------
    rates
        a and b of each charge whose generator multiplies some parameters by e^{aα} and the others by e^{−bα}; NaN where
        it has more rates than two.
    """

    def __init__(self, family: Family, layout: Layout, device: torch.device) -> None:
        self._forms = Forms({family.name: family.magnitudes()}, layout, device, ("value", "drive_gradient"), full=0)
        self.count, self.rates = len(family), _rates(family)

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write `SIGNALS` to `out`."""
        self._forms.evaluate(step, out)


def _rates(family: Family) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    least, largest = (np.full((2, len(family)), fill) for fill in (np.inf, -np.inf))
    for term in family.terms:
        part = term.coefficients.tocoo()
        charges, side = term.first[part.row], (part.data < 0).astype(int)
        np.minimum.at(least, (side, charges), np.abs(part.data))
        np.maximum.at(largest, (side, charges), np.abs(part.data))
    a, b = np.where(least == largest, least, np.nan)
    return a, b
