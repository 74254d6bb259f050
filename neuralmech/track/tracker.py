"""Record every tracked charge and its drives, step by step, without waiting for the device."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.record import BackgroundWriter, RecordWriter
from neuralmech.record.schema import NESTEROV_SIGNAL, NOISE_SIGNALS, SIGNALS, STEP_COLUMNS
from neuralmech.record.writer import FamilyLayout
from neuralmech.symmetry.eager import SparseRows
from neuralmech.symmetry.forms import Forms
from neuralmech.symmetry.group import Family, Symmetries
from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.matrix_forms import FULL
from neuralmech.symmetry.step import LINEAR, Step
from neuralmech.track.selection import select
from neuralmech.track.single import single_parameters


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
    noise
        Whether to record what the gradients of half batches say of mean and noise.
    block
        Rows per block.
    full
        Sites of the ``linear`` family up to this many channels are recorded entry by entry, larger ones on
        their diagonal; the Frobenius norm of each is recorded too.
    dtype
        Of the parameters.
    kept
        Names of the signals to record besides the value, or None for all.
    charges, sample
        Record ``all`` charges, their sum over each ``site``, or a ``sample`` of so many of each site.
    parameters
        How many single parameters of each family to record beside its charges.
    """

    def __init__(
        self,
        symmetries: Symmetries,
        layout: Layout,
        device: torch.device,
        *,
        families: Sequence[str] | None = None,
        nesterov: bool = False,
        noise: bool = False,
        block: int = 256,
        full: int = FULL,
        dtype: torch.dtype = torch.float32,
        kept: Sequence[str] | None = None,
        charges: str = "all",
        sample: int = 8,
        parameters: int = 0,
    ) -> None:
        self.signals = (*SIGNALS, *((NESTEROV_SIGNAL,) if nesterov else ()), *(NOISE_SIGNALS if noise else ()))
        self._kept = self.signals if kept is None else tuple(s for s in self.signals if s == "value" or s in kept)
        self.families = {n: f for n, f in symmetries.families.items() if families is None or n in families}
        self.block = block
        self._forms = Forms(self.families, layout, device, self.signals, full=full)
        new = functools.partial(torch.zeros, dtype=torch.float64, device=device)
        layouts, chosen = select(self._all_layouts(), charges, sample)
        single = single_parameters(self.families, layouts, chosen, layout, parameters)
        self._layouts = {n: replace(kept, parameters=single[n]) for n, kept in layouts.items()}
        places = [layout.offsets[name] + entry for found in single.values() for name, entry, _ in found]
        self._places = torch.tensor(places, dtype=torch.int64, device=device)
        self._single = torch.empty(block, len(places), dtype=dtype, device=device)
        self._select = None if chosen is None else SparseRows(chosen, device)
        self._every = new(len(self.signals), self._forms.width)
        sizes = np.cumsum([0, *(len(layout.sites) for layout in self._layouts.values())]).tolist()
        self._columns = {n: slice(a, b) for n, a, b in zip(self._layouts, sizes, sizes[1:], strict=False)}
        self._ring = new(block, len(self.signals), sizes[-1])
        self._norms = new(block, self._forms.norms)
        self._losses = new(block)
        self._before = torch.empty(layout.size, dtype=dtype, device=device)
        self.halves: tuple[Tensor, Tensor] | None = None  # the last ones measured
        self._rows: list[dict[str, float]] = []

    def layouts(self) -> dict[str, FamilyLayout]:
        """Describe the families to the record."""
        return self._layouts

    @property
    def bytes_per_row(self) -> int:
        """Size of a row in the record before compression."""
        return 8 * (sum(layout.width for layout in self._layouts.values()) + len(STEP_COLUMNS))

    def _all_layouts(self) -> dict[str, FamilyLayout]:
        layouts = {
            n: FamilyLayout(f.sites, f.channels, self._signals(f), f.is_translation) for n, f in self.families.items()
        }
        if m := self._forms.matrix:
            layouts["linear"] = FamilyLayout(m.sites, m.rows, self._kept, False, m.columns, m.names)
        return {name: layouts[name] for name in self._forms.columns}  # in the order of the forms

    def _signals(self, family: Family) -> tuple[str, ...]:
        return tuple(s for s in self._kept if s in LINEAR or not family.is_translation)

    @torch.no_grad()
    def before(self, theta: Tensor) -> None:
        """Keep θ_k."""
        self._before.copy_(theta)

    @torch.no_grad()
    def after(
        self,
        theta: Tensor,
        gradient: Tensor,
        buffer: Tensor | None,
        loss: Tensor,
        row: Mapping[str, float],
        halves: tuple[Tensor, Tensor] | None = None,
        *,
        norms: bool = True,
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
        halves
            Gradients of the batch's halves, if measured at this step; otherwise the last ones count.
        norms
            Whether to measure the Frobenius norms of matrix-valued charges; NaN otherwise.
        """
        slot = len(self._rows)
        self._losses[slot] = loss.detach()
        self.halves = halves or self.halves
        rate = 1.0 / row["lr"] if row["lr"] else 0.0
        step = Step(self._before, theta.detach(), gradient, rate, buffer, self.halves, int(row["batch_size"]))
        if self._select is None:
            self._forms.evaluate(step, self._ring[slot])
        else:
            self._forms.evaluate(step, self._every)
            self._select.combine(self._every, self._ring[slot])
        torch.index_select(self._before, 0, self._places, out=self._single[slot])
        if norms:
            self._forms.frobenius(step, self._norms[slot])
        else:
            self._norms[slot] = torch.nan
        self._rows.append(dict(row))

    @property
    def is_full(self) -> bool:
        """Whether the block must be written before the next row."""
        return len(self._rows) == self.block

    @property
    def pending(self) -> int:
        """Rows measured and not yet written."""
        return len(self._rows)

    def write(self, record: RecordWriter | BackgroundWriter, *, cut: bool = True) -> Block:
        """Append the measured rows, with `cut` up to the first that is not finite, and start a new block."""
        rows, self._rows = self._rows, []  # first, so that no interruption can write them twice
        losses = self._losses[: len(rows)].to("cpu", copy=True).numpy()
        ring = self._ring[: len(rows)].to("cpu", copy=True).numpy()  # a thread may write it later
        signals = {name: ring[:, :, columns] for name, columns in self._columns.items()}
        finite = _finite_rows(losses, ring)
        keep = finite if cut else len(rows)
        if keep:
            columns = {
                name: np.array([r[name] for r in rows[:keep]], dtype=dtype)
                for name, dtype in STEP_COLUMNS.items()
                if name != "loss"
            }
            charges = {
                n: {s: v[:keep, i] for i, s in enumerate(self.signals) if s in self._layouts[n].signals}
                for n, v in signals.items()
            }
            if self._forms.matrix:
                charges["linear"]["frobenius"] = self._norms[:keep].to("cpu", copy=True).numpy()
            self._add_parameters(charges, keep)
            record.append({**columns, "loss": losses[:keep]}, charges)
        broken = int(rows[finite]["step"]) if finite < len(rows) else None
        return Block(float(losses[min(keep, len(rows) - 1)]), broken)

    def _add_parameters(self, charges: dict[str, dict[str, NDArray]], rows: int) -> None:
        values, first = self._single[:rows].to("cpu", torch.float64, copy=True).numpy(), 0
        for name, layout in self._layouts.items():
            if layout.parameters:
                charges[name]["parameters"] = values[:, first : first + len(layout.parameters)]
                first += len(layout.parameters)


def _finite_rows(losses: NDArray, ring: NDArray) -> int:
    """Rows before the first that holds a number that is not finite."""
    finite = np.isfinite(losses) & np.isfinite(ring).all(axis=(1, 2))
    return int(finite.size if finite.all() else np.argmin(finite))
