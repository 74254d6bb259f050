"""A small problem on which a mover's steps are compared with PyTorch's, before a run relies on them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from neuralmech.charges.plan import NO_ROWS, Plan, QuadraticPlan, TranslationPlan, rectangles
from neuralmech.symmetry.layout import Layout

SIDE = 32


class Trial(NamedTuple):
    """One weight (`SIDE` × `SIDE`) with a charge for each of its rows and columns.

    Attributes
    ----------
    theta
        Where both start; a mover takes it flat, in a copy.
    gradients
        Those of the steps.
    """

    plan: Plan
    theta: Float[Tensor, "rows columns"]
    gradients: list[Float[Tensor, "rows columns"]]


def trial(dtype: torch.dtype) -> Trial:
    """The same problem every time, in this precision."""
    generator = torch.Generator().manual_seed(0)
    theta, *gradients = (torch.randn(SIDE, SIDE, dtype=dtype, generator=generator) for _ in range(5))
    square = rectangles(start=[0], rows=SIDE, columns=SIDE, row_place=0, column_place=SIDE)
    nothing = TranslationPlan(NO_ROWS, sparse.csr_array((0, theta.numel())))
    quadratic = QuadraticPlan(square, 2 * SIDE, sparse.eye_array(2 * SIDE, format="csr"))
    return Trial(Plan(quadratic, nothing, Layout.by_shape({"theta": (SIDE, SIDE)})), theta, gradients)
