"""Evaluate all charges of a model at once: each parameter is read once or a few times, whatever the charges are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuralmech.charges.eager import EagerForms
from neuralmech.charges.matrix_forms import FULL, MatrixForms
from neuralmech.charges.plan import families_by_form, quadratic_plan
from neuralmech.charges.step import Motion, Step
from neuralmech.charges.translation_plan import translation_plan
from neuralmech.symmetry.family import Family
from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.matrix import MatrixFamily

if TYPE_CHECKING:  # numba takes half a second to import
    from neuralmech.charges.one_pass import OnePass


class Forms:
    """Every signal of every charge of a step, side by side.

    Parameters
    ----------
    families
        What to evaluate.
    layout
        Where parameters lie in the flat vectors.
    signals
        Names out of `QUADRATIC`, beginning with value, drive_update, drive_gradient and residual.
    full
        Matrix-valued charges of up to this many channels are evaluated entry by entry, larger ones on the diagonal.
    compiled
        One pass in compiled code (CPU only) or reductions by torch (any device); by default what the device has.

    Attributes
    ----------
    columns
        Family → its columns in the output.
    matrix
        The matrix-valued charges, if any.
    """

    def __init__(
        self,
        families: Mapping[str, Family],
        layout: Layout,
        device: torch.device,
        signals: tuple[str, ...],
        *,
        full: int = FULL,
        compiled: bool | None = None,
    ) -> None:
        self._signals = signals
        self.matrix = next(
            (MatrixForms(f, layout, device, full) for f in families.values() if isinstance(f, MatrixFamily)), None
        )
        diagonal, translation = families_by_form(families)
        large = self.matrix.diagonal if self.matrix else None
        quadratic = quadratic_plan([*diagonal, *([large] if large else [])], layout)
        plan = translation_plan(translation, layout)
        self._layout = layout
        if device.type == "cpu" if compiled is None else compiled:
            from neuralmech.charges.compiled import CompiledForms

            self._forms = CompiledForms(quadratic, plan, signals)
        else:
            self._forms = EagerForms(quadratic, plan, signals, layout, device)
        self.columns: dict[str, slice] = {}
        self.width = 0
        sizes = [(f.name, len(f)) for f in (*diagonal, *translation)]
        self._vectors = sum(n for _, n in sizes)
        for name, size in [*sizes, *([("linear", len(self.matrix))] if self.matrix else [])]:
            self.columns[name] = slice(self.width, self.width + size)
            self.width += size
        self.norms = len(self.matrix.names) if self.matrix else 0
        self._places = self._scratch = None
        if self.matrix and large:  # evaluated between the diagonal and the translation charges, wanted behind both
            split = sum(len(f) for f in diagonal)
            order = [np.arange(split), self._vectors + self.matrix.places, np.arange(split, self._vectors)]
            self._places = torch.as_tensor(np.concatenate(order), device=device)
            self._scratch = torch.zeros(len(signals), len(self._places), dtype=torch.float64, device=device)

    def evaluate(self, step: Step, out: Tensor) -> None:
        """Write the forms to `out`, float64 (signals, width)."""
        self._write(lambda vectors: self._forms.evaluate(step, vectors), step, out)

    def one_pass(self, theta: Tensor) -> OnePass | None:
        """What `advance` takes steps of the flat parameters with; None where nothing is compiled."""
        if isinstance(self._forms, EagerForms):
            return None
        return self._forms.one_pass(self._layout, theta, self.matrix.small if self.matrix else ())

    def advance(self, take: OnePass, motion: Motion, step: Step, out: Tensor) -> None:
        """Take a step of SGD and write its forms to `out`; `step` is what `take` keeps of it."""
        assert not isinstance(self._forms, EagerForms)
        forms = self._forms
        self._write(lambda vectors: forms.advance(take, motion, step, vectors), step, out)

    def _write(self, vectors: Callable[[Tensor], None], step: Step, out: Tensor) -> None:
        """Diagonal and translation charges by `vectors`, then the small matrices, which read the step itself."""
        if self._scratch is None or self._places is None:
            vectors(out[:, : self._vectors] if self.matrix else out)
        else:
            vectors(self._scratch)
            out.index_copy_(1, self._places, self._scratch)
        if self.matrix:
            self.matrix.evaluate(step, self._signals, out[:, self._vectors :])

    def frobenius(self, step: Step, norms: Tensor) -> None:
        """Write the Frobenius norms of the matrix-valued charges to `norms` (sites,)."""
        if self.matrix:
            self.matrix.frobenius(step, norms)
