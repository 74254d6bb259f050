"""Evaluate all charges of a model at once: each parameter is read once or a few times, whatever the charges are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from neuralmech.charges.gpu import Gpu, sums_tiles
from neuralmech.charges.matrix_forms import FULL, MatrixForms
from neuralmech.charges.plan import Plan, of_tensors, plan_of
from neuralmech.charges.reference import Reference
from neuralmech.charges.step import Backend, M, Mover, Step, Taken
from neuralmech.symmetry.family import Family
from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.matrix import matrix_families

Make = Callable[[Plan, Sequence[str], torch.device], Backend]


def backend_of(device: torch.device) -> Make:
    """The fastest that works on a device."""
    if device.type == "cpu":
        from neuralmech.charges.cpu import Cpu  # numba takes half a second to import

        return Cpu
    return Gpu if device.type == "cuda" and sums_tiles(device) else Reference


class Forms:
    """Every signal of every charge of a step, side by side.

    Parameters
    ----------
    families
        What to evaluate.
    layout
        Where parameters lie in the flat vectors.
    signals
        Names out of `FORMS`, beginning with `MAIN`.
    full
        Matrix-valued charges of up to this many channels are evaluated entry by entry, larger ones on the diagonal.
    make
        The backend; by default the one that suits the device.
    tensors
        Whether the forms with S = 1 of each parameter tensor, |θ|² and so on, are wanted besides, in the first columns.

    Attributes
    ----------
    tensors
        Number of these columns.
    columns
        Family → its columns in the output.
    device
        Where it is evaluated.
    width
        Number of columns.
    matrix
        The matrix-valued charges, if any.
    """

    def __init__(
        self,
        families: Mapping[str, Family],
        layout: Layout,
        device: torch.device,
        signals: Sequence[str],
        *,
        full: int = FULL,
        make: Make | None = None,
        tensors: bool = False,
    ) -> None:
        self._signals, self.device = signals, device
        diagonal = [f for f in families.values() if f.kind == "diagonal"]
        translation = [f for f in families.values() if f.kind == "translation"]
        self.matrix = next((MatrixForms(f, layout, device, full) for f in matrix_families(families.values())), None)
        large = self.matrix.diagonal if self.matrix else None
        summed = [*diagonal, *([large] if large else [])]
        whole = [of_tensors(summed, layout)] if tensors else []
        self.tensors = sum(map(len, whole))
        plan = plan_of([*whole, *summed], translation, layout)
        self._backend = (make or backend_of(device))(plan, signals, device)
        self.columns: dict[str, slice] = {}
        self.width = self.tensors
        sizes = [(f.name, len(f)) for f in (*diagonal, *translation)]
        self._vectors = self.tensors + sum(n for _, n in sizes)
        for name, size in [*sizes, *([("linear", len(self.matrix))] if self.matrix else [])]:
            self.columns[name] = slice(self.width, self.width + size)
            self.width += size
        self.norms = len(self.matrix.names) if self.matrix else 0
        self._places = self._scratch = None
        if self.matrix and large:  # evaluated between the diagonal and the translation charges, wanted behind both
            split = self.tensors + sum(len(f) for f in diagonal)
            order = [np.arange(split), self._vectors + self.matrix.places, np.arange(split, self._vectors)]
            self._places = torch.as_tensor(np.concatenate(order), device=device)
            self._scratch = torch.zeros(len(signals), len(self._places), dtype=torch.float64, device=device)

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write the forms to `out`."""
        self._backend.evaluate(step, self._room(out))
        self._complete(step, out)

    def mover(self, theta: Float[Tensor, " parameters"]) -> Mover | None:
        """What takes steps on the flat parameters and writes their forms; None where the backend has none."""
        mover = self._backend.mover(theta, self.matrix.small if self.matrix else ())
        return None if mover is None else FormsMover(self, mover)

    def follower(self, theta: Float[Tensor, " parameters"]) -> Mover | None:
        """What reads steps that somebody took and writes their forms; None where the backend has none."""
        follower = self._backend.follower(theta, self.matrix.small if self.matrix else ())
        return None if follower is None else FormsMover(self, follower)

    def _room(self, out: Tensor) -> Tensor:
        """Where the backend's charges go at first."""
        if self._scratch is not None:
            return self._scratch
        return out[:, : self._vectors] if self.matrix else out

    def _complete(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Put the backend's charges in their places, and evaluate the small matrices, which read the step itself."""
        if self._scratch is not None and self._places is not None:
            out.index_copy_(1, self._places, self._scratch)
        if self.matrix:
            self.matrix.evaluate(step, self._signals, out[:, self._vectors :])

    def frobenius(self, theta: Float[Tensor, " parameters"], norms: Float64[Tensor, " sites"]) -> None:
        """Write the Frobenius norms of the matrix-valued charges at θ to `norms`."""
        if self.matrix:
            self.matrix.frobenius(theta, norms)


class FormsMover(Generic[M]):
    """Takes or reads steps and writes all forms of them."""

    def __init__(self, forms: Forms, mover: Mover[M]) -> None:
        self.theta, self._forms, self._mover = mover.theta, forms, mover
        self.move = mover.move

    def measure(self, step: M | Taken, out: Float64[Tensor, "signals charges"], /) -> Step:
        """Take or read a step and write its forms to `out`."""
        found = self._mover.measure(step, self._forms._room(out))
        self._forms._complete(found, out)
        return found
