"""Record every tracked charge and its drives, step by step, without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.record import RecordWriter
from neuralmech.record.schema import NESTEROV_SIGNAL, SIGNALS, STEP_COLUMNS
from neuralmech.record.writer import FamilyLayout
from neuralmech.symmetry.charges import DiagonalForms, Layout, LinearForms
from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.matrix import MatrixFamily
from neuralmech.symmetry.matrix_forms import FULL, MatrixForms


@dataclass(frozen=True)
class Block:
    """What became of a block of rows: its last loss, and the step that was not finite, if any."""

    last_loss: float
    broken_at: int | None


class Tracker:
    """Measures charges around optimiser steps and hands whole blocks of rows to a record.

    Call `before` with the parameters at θ_k, let the optimiser step, call `after`. Nothing in either waits for
    the device; the buffers are copied to the host once per block.

    Parameters
    ----------
    symmetries
        What to track.
    layout
        Where the parameters lie in the flat tensors passed to `before` and `after`.
    families
        Names of the families to track, or None for all.
    nesterov
        Whether to record ``drive_buffer`` too, which Nesterov's laws need.
    block
        Rows per block.
    full
        Sites of the ``linear`` family up to this many channels are recorded entry by entry, larger ones on
        their diagonal; the Frobenius norm of each is recorded too.
    """

    def __init__(
        self,
        symmetries: Symmetries,
        layout: Layout,
        device: torch.device,
        *,
        families: Sequence[str] | None = None,
        nesterov: bool = False,
        block: int = 256,
        full: int = FULL,
    ) -> None:
        self.signals = (*SIGNALS, NESTEROV_SIGNAL) if nesterov else SIGNALS
        self.families = {n: f for n, f in symmetries.families.items() if families is None or n in families}
        self.block = block
        count = len(self.signals)
        self._matrix, self._forms = None, {}
        for name, family in self.families.items():
            if isinstance(family, MatrixFamily):
                self._matrix = MatrixForms(family, layout, device, full)
            else:
                self._forms[name] = (LinearForms if family.is_linear else DiagonalForms)(family, layout, device)
        sizes = {n: len(self._matrix if n == "linear" and self._matrix else f) for n, f in self.families.items()}
        self._rings = {
            n: torch.empty(block, count, size, dtype=torch.float64, device=device) for n, size in sizes.items()
        }
        norms = len(self._matrix.names) if self._matrix else 0
        self._norms = torch.empty(block, norms, dtype=torch.float64, device=device)
        self._losses = torch.empty(block, dtype=torch.float64, device=device)
        self._before = torch.empty(layout.size, dtype=torch.float64, device=device)
        self._motion = torch.empty_like(self._before)
        self._force = torch.empty_like(self._before)
        self._products = torch.empty(count, layout.size, dtype=torch.float64, device=device)
        self._rows: list[dict[str, float]] = []

    def layouts(self) -> dict[str, FamilyLayout]:
        """Describe the families to the record."""
        layouts = {
            n: FamilyLayout(f.sites, f.channels, self.signals, linear=f.is_linear)
            for n, f in self.families.items()
            if n in self._forms
        }
        if self._matrix:
            m = self._matrix
            layouts["linear"] = FamilyLayout(m.sites, m.rows, self.signals, False, m.columns, m.names)
        return layouts

    @torch.no_grad()
    def before(self, theta: Tensor) -> None:
        """Keep θ_k, exactly, in float64."""
        self._before.copy_(theta)

    @torch.no_grad()
    def after(
        self, theta: Tensor, gradient: Tensor, buffer: Tensor | None, loss: Tensor, row: Mapping[str, float]
    ) -> None:
        """Record one row: the charges at θ_k and the drives of the step to `theta` = θ_{k+1}.

        Parameters
        ----------
        theta, gradient
            Flat: θ_{k+1} and the loss gradient at θ_k, without weight decay.
        buffer
            The momentum buffer after the step, needed under Nesterov momentum only.
        loss
            The batch loss at θ_k; stays on the device.
        row
            Step and hyperparameters, the columns of ``/steps`` other than the loss.
        """
        slot = len(self._rows)
        self._losses[slot] = loss.detach()
        self._measure_motion(theta, gradient, row["lr"])
        momentum = None if NESTEROV_SIGNAL not in self.signals or buffer is None else buffer.double()
        if self._matrix or any(f.is_linear for f in self.families.values()):
            self._fill_vectors(momentum)
            self._evaluate(slot, linear=True)
        if any(not self.families[n].is_linear for n in self._forms):
            self._fill_products(momentum)
            self._evaluate(slot, linear=False)
        self._rows.append(dict(row))

    @property
    def is_full(self) -> bool:
        """Whether the block must be written before the next row."""
        return len(self._rows) == self.block

    @property
    def pending(self) -> int:
        """Rows measured and not yet written."""
        return len(self._rows)

    def write(self, record: RecordWriter, *, cut: bool = True) -> Block:
        """Append the measured rows, with `cut` up to the first that is not finite, and start a new block."""
        rows, self._rows = self._rows, []  # first, so that no interruption can write them twice
        losses = self._losses[: len(rows)].cpu().numpy()
        signals = {n: ring[: len(rows)].cpu().numpy() for n, ring in self._rings.items()}
        finite = _finite_rows(losses, signals.values())
        keep = finite if cut else len(rows)
        if keep:
            columns = {
                name: np.array([r[name] for r in rows[:keep]], dtype=dtype)
                for name, dtype in STEP_COLUMNS.items()
                if name != "loss"
            }
            charges = {n: {s: v[:keep, i] for i, s in enumerate(self.signals)} for n, v in signals.items()}
            if self._matrix:
                charges["linear"]["frobenius"] = self._norms[:keep].cpu().numpy()
            record.append({**columns, "loss": losses[:keep]}, charges)
        broken = int(rows[finite]["step"]) if finite < len(rows) else None
        return Block(float(losses[min(keep, len(rows) - 1)]), broken)

    def _measure_motion(self, theta: Tensor, gradient: Tensor, lr: float) -> None:
        """u = (θ_k − θ_{k+1})/η from the parameters as stored; a step with η = 0 has no motion."""
        self._motion.copy_(theta)
        torch.sub(self._before, self._motion, out=self._motion)
        self._motion.mul_(1.0 / lr if lr else 0.0)
        self._force.copy_(gradient)

    def _fill_vectors(self, momentum: Tensor | None) -> None:
        rows = [self._before, self._motion, self._force, self._force, momentum]
        for target, source in zip(self._products, rows, strict=False):
            target.copy_(source)  # type: ignore[arg-type]

    def _fill_products(self, momentum: Tensor | None) -> None:
        pairs = [
            (self._before, self._before),
            (self._motion, self._motion),
            (self._force, self._force),
            (self._before, self._force),
            (self._motion, momentum),
        ]
        for target, (x, y) in zip(self._products, pairs, strict=False):
            torch.mul(x, y, out=target)  # type: ignore[arg-type]

    def _evaluate(self, slot: int, *, linear: bool) -> None:
        for name, form in self._forms.items():
            if self.families[name].is_linear == linear:
                form.evaluate(self._products, self._rings[name][slot])
        if linear and self._matrix:
            self._matrix.evaluate(self._products, self._rings["linear"][slot], self._norms[slot])


def _finite_rows(losses: NDArray, signals: Iterable[NDArray]) -> int:
    """Rows before the first that holds a number that is not finite."""
    finite = np.isfinite(losses)
    for values in signals:
        finite &= np.isfinite(values).all(axis=(1, 2))
    return int(finite.size if finite.all() else np.argmin(finite))
