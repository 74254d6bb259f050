"""What is measured beside the charges: single parameters, how far the rule leans, angular momenta, sides, norms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralmech.charges.forms import Forms
from neuralmech.charges.leaning import Leaning
from neuralmech.charges.rotations import SIGNALS as OF_ROTATIONS
from neuralmech.charges.rotations import Rotations
from neuralmech.charges.sides import SIGNALS as OF_SIDES
from neuralmech.charges.sides import Sides
from neuralmech.charges.step import Step
from neuralmech.record.schema import ROTATIONS, FamilyLayout
from neuralmech.symmetry.family import Family
from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.matrix import matrix_families
from neuralmech.track.block import Columns, OnDevice, OnHost
from neuralmech.track.options import Tracking
from neuralmech.track.selection import Recorded, single_parameters

Shapes = dict[str, tuple[int, ...]]


class Beside:
    """Measures what a row holds beside the charges' signals, as far as the options want it.

    Parameters
    ----------
    families
        Whose charges are tracked, in the metric of the groups' learning rates.
    layout
        Where they lie in the flat vectors of a step.
    forms
        Evaluates the charges; here the norms of matrix-valued ones.
    recorded
        Which charges are recorded.

    Attributes
    ----------
    layouts
        Those of the charges, with what is recorded of each family beside them.
    in_some_rows
        Whether something is measured in some rows only: matrix-valued charges' norms, or how far the rule leans.
    leans
        Whether it is measured how far the rule leans on generators, where norms are.
    needs_vectors
        Whether it takes the vectors of the whole step, in every row.
    """

    def __init__(
        self, families: Mapping[str, Family], layout: Layout, forms: Forms, recorded: Recorded, options: Tracking
    ) -> None:
        device = forms.device
        self._forms = forms
        self._leaning = Leaning(families, layout, device) if "rule_work" in options.extra else None
        matrices = matrix_families(families.values()) if options.rotations else []
        rotations = [Rotations(f, layout, device, options.full, options.momentum) for f in matrices]
        self._rotations = rotations[0] if rotations else None
        paired = families.get("rescale") if options.sides else None
        self._sides = Sides(paired, layout, device) if paired else None
        single = single_parameters(families, recorded, layout, options.parameters)
        leans = self._leaning.sites if self._leaning else {}
        self._of_charges = {
            n: replace(k, parameters=single[n], leans=leans.get(n, ())) for n, k in recorded.layouts.items()
        }
        places = [layout.offsets[name] + entry for found in single.values() for name, entry, _ in found]
        self._places_here = np.array(places, dtype=np.int64)
        self._places = torch.as_tensor(self._places_here, device=device)
        self.leans = self._leaning is not None
        self.in_some_rows = forms.norms > 0 or self.leans
        self.needs_vectors = self._rotations is not None or self._sides is not None

    @property
    def shapes(self) -> Shapes:
        """Of a row's parts that are measured here."""
        return {
            "norms": (self._forms.norms,),
            "single": (len(self._places),),
            "lean": (self._leaning.count if self._leaning else 0,),
            "turning": (len(OF_ROTATIONS), len(self._rotations) if self._rotations else 0),
            "sides": (len(OF_SIDES), self._sides.count if self._sides else 0),
        }

    @property
    def layouts(self) -> dict[str, FamilyLayout]:
        """Describe the families to the record, and the angular momenta."""
        out = dict(self._of_charges)
        if (r := self._rotations) is not None:
            out[ROTATIONS] = FamilyLayout(r.sites, r.rows, OF_ROTATIONS, False, r.columns)
        if self._sides:
            mine = out["rescale"]
            out["rescale"] = replace(mine, signals=(*mine.signals, *OF_SIDES), rates=self._sides.rates)
        return out

    def evaluate(self, step: Step, into: OnDevice, *, norms: bool) -> None:
        """Write what is measured of a step to its row."""
        into.single.copy_(step.before.index_select(0, self._places))
        self._write_norms(step.before, into, norms=norms)
        if self._rotations:
            self._rotations.evaluate(step, into.turning)
        if self._sides:
            self._sides.evaluate(step, into.sides)
        if self._leaning and norms:
            self._leaning.evaluate(step, into.lean)
        elif self._leaning:
            into.lean.fill_(math.nan)

    def evaluate_at(
        self, theta: Float[Tensor, " parameters"], into: OnDevice, arrays: OnHost, row: int, *, norms: bool
    ) -> None:
        """Write what takes θ_k alone, on the CPU, to row `row` of the arrays, which is `into`."""
        assert not self.needs_vectors
        assert not (self.leans and norms)
        if len(places := self._places_here):
            arrays.single[row] = theta.numpy()[places]
        self._write_norms(theta, into, norms=norms)
        if self._leaning:
            into.lean.fill_(math.nan)

    def _write_norms(self, theta: Tensor, into: OnDevice, *, norms: bool) -> None:
        if norms:
            self._forms.frobenius(theta, into.norms)
        elif self._forms.norms:
            into.norms.fill_(math.nan)

    def add_to(self, charges: dict[str, Columns], measured: OnHost) -> None:
        """Add what was measured to the charges' columns, family by family."""
        if self._forms.matrix:
            charges["linear"]["frobenius"] = measured.norms
        if self._sides:
            charges["rescale"] |= {s: measured.sides[:, i] for i, s in enumerate(OF_SIDES)}
        if self._rotations:
            charges[ROTATIONS] = {s: measured.turning[:, i] for i, s in enumerate(OF_ROTATIONS)}
        first = of_lean = 0
        for name, layout in self._of_charges.items():
            if layout.leans:
                charges[name]["lean"] = measured.lean[:, of_lean : of_lean + len(layout.leans)]
                of_lean += len(layout.leans)
            if layout.parameters:
                charges[name]["parameters"] = measured.single[:, first : first + len(layout.parameters)]
                first += len(layout.parameters)
