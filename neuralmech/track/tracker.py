"""Record every tracked charge and its drives, step by step, without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from neuralmech.charges.forms import Forms
from neuralmech.charges.reference import SparseRows
from neuralmech.charges.step import FORMS, Kept, M, Mover, Step, Taken, rate_of
from neuralmech.record import BackgroundWriter, RecordWriter
from neuralmech.record.schema import FLIP_SIGNAL, NOISE_SIGNALS, SIGNALS, STEP_COLUMNS, Classes, FamilyLayout
from neuralmech.symmetry.family import Family
from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.layout import Layout
from neuralmech.track.apart import Apart
from neuralmech.track.beside import Beside
from neuralmech.track.block import NOTHING, Columns, Measured, OnDevice, OnHost, RowBuffer, Seen
from neuralmech.track.earlier import Earlier
from neuralmech.track.norms import NormColumns
from neuralmech.track.options import Tracking
from neuralmech.track.selection import behind, classes, select

BLOCK_BYTES = 1 << 25  # of which there are up to five: filled, being written, and what waits between


class Tracker:
    """Measures charges around optimiser steps and hands whole blocks of rows to a record.

    Call `before` with the parameters at θ_k, let the optimiser step, call `after` with the `step`. Nothing in these
    waits for the device; the buffers are copied to the host once per block. Who has θ_k, θ_{k+1} and g anyway calls
    `after` alone.

    Parameters
    ----------
    symmetries
        The families.
    layout
        Where they lie in the flat vectors of a step.
    theta
        The parameters, flat.
    options
        What to record.

    Attributes
    ----------
    block
        The rows measured and not yet written, and what became of those that were.
    noise
        Mean and noise of every recorded charge, to be recorded until it is measured anew; see `expected`.
    """

    def __init__(
        self,
        symmetries: Symmetries,
        layout: Layout,
        theta: Float[Tensor, " parameters"],
        options: Tracking = Tracking(),  # noqa: B008  (nothing can change it)
    ) -> None:
        flip = (FLIP_SIGNAL,) if options.oscillation else ()
        device, in_forms = theta.device, (*SIGNALS, *options.extra, *flip)
        self.signals = (*in_forms, *(NOISE_SIGNALS if options.noise else ()))
        self._kept = tuple(s for s in self.signals if s == "value" or options.kept is None or s in options.kept)
        wanted, ratios = options.families, options.ratios
        chosen = {n: f for n, f in symmetries.families.items() if wanted is None or n in wanted}
        self.families = {n: f if ratios is None else f.in_metric(ratios) for n, f in chosen.items()}
        self._ratio, self._shrink = (
            None if of is None else torch.as_tensor(layout.filled(of), device=device)
            for of in (options.ratios, options.decays)
        )
        self._in_metric = None if self._ratio is None else self._ratio.to(theta.dtype)
        self._norms = NormColumns(layout, options)
        wants_norms = self._norms.count > 0
        self._forms = Forms(self.families, layout, device, in_forms, full=options.full, tensors=wants_norms)
        layouts = self._all_layouts({n: classes(f, layout.shapes, options) for n, f in chosen.items()})
        recorded = select(layouts, options.charges, options.sample)
        self._beside = Beside(self.families, layout, self._forms, recorded, options)
        first = self._norms.count
        self._select = None if recorded.matrix is None else SparseRows(behind(first, recorded.matrix), device)
        self._every = torch.zeros(len(in_forms), self._forms.width, dtype=torch.float64, device=device)
        sizes = np.cumsum([first, *(len(of.sites) for of in recorded.layouts.values())]).tolist()
        self._columns = {n: slice(a, b) for n, a, b in zip(recorded.layouts, sizes, sizes[1:], strict=False)}
        self._recorded = recorded.layouts
        self._apart = Apart(options.apart, self._recorded, self.signals, first, device) if options.apart else None
        rules = {} if self._apart is None else {"rules": self._apart.shape}
        shapes: Measured = NOTHING._replace(ring=(len(self.signals), sizes[-1]), **self._beside.shapes, **rules)
        per_row = 8 * sum(math.prod(shape) for shape in shapes)
        self.block = RowBuffer(max(1, min(options.block, BLOCK_BYTES // per_row)), shapes, device)
        self._before = torch.empty(layout.size, dtype=theta.dtype, device=device)
        self._earlier = Earlier(self._before, work=options.work, flip=options.oscillation)
        self._has_noise = options.noise
        self.noise: tuple[Tensor, Tensor] | None = None

    @property
    def has_leaning(self) -> bool:
        """Whether it is measured how far the rule leans on generators, where `norms` are."""
        return self._beside.leans

    @property
    def has_norms(self) -> bool:
        """Whether something is measured in some rows only: matrix-valued charges' norms, or how far the rule leans."""
        return self._beside.in_some_rows

    def layouts(self) -> dict[str, FamilyLayout]:
        """Describe the families to the record, and the angular momenta."""
        rules = {} if self._apart is None else self._apart.layouts
        return {**self._beside.layouts, **self._norms.layouts, **rules}

    @property
    def recorded(self) -> int:
        """Number of recorded charges."""
        return sum(len(layout.sites) for layout in self._recorded.values())

    @property
    def bytes_per_row(self) -> int:
        """Size of a row in the record before compression."""
        return 8 * (sum(layout.width for layout in self.layouts().values()) + len(STEP_COLUMNS))

    def _all_layouts(self, of: Mapping[str, Classes]) -> dict[str, FamilyLayout]:
        """All charges of the families, of these classes, in the order of the forms."""
        layouts = {
            n: FamilyLayout(f.sites, f.channels, self._signals(f), f.is_translation, classes=of[n])
            for n, f in self.families.items()
        }
        if m := self._forms.matrix:
            any_of = {site: charge for charge, site in enumerate(self.families["linear"].sites)}
            at = [any_of[site] for site in m.sites]  # all entries of a matrix are of one class
            entries = m.rows, self._kept, False, m.columns, m.names
            layouts["linear"] = FamilyLayout(m.sites, *entries, classes=of["linear"].at(at))
        return {name: layouts[name] for name in self._forms.columns}

    def _signals(self, family: Family) -> tuple[str, ...]:
        return tuple(s for s in self._kept if not family.is_translation or (s in FORMS and FORMS[s].z))

    def room(self) -> Float[Tensor, " parameters"]:
        """Where to put θ_k, flat, in the place of `before`."""
        self._earlier.keep(self._before)
        return self._before

    @torch.no_grad()
    def before(self, theta: Float[Tensor, " parameters"]) -> None:
        """Keep θ_k."""
        self.room().copy_(theta)

    @property
    def last(self) -> Float[Tensor, " parameters"] | None:
        """θ_{k−1}, if the next row needs it."""
        return None if self._earlier.theta is None else self._before

    def start(self, theta: Float[Tensor, " parameters"], rate: float = 0.0) -> None:
        """Where the run starts, or θ_{k−1} and 1/η of that step where it continues; for what compares two steps."""
        self._before.copy_(theta.detach())
        self._earlier.start(rate)

    def step(
        self,
        theta: Float[Tensor, " parameters"],
        gradient: Float[Tensor, " parameters"],
        rate: float | Float64[Tensor, ""],
        kept: Kept = Kept(),  # noqa: B008  (nothing can change it)
    ) -> Step:
        """The step from the θ_k that `before` kept.

        Parameters
        ----------
        theta, gradient
            θ_{k+1} and the gradient that the rule saw, without weight decay.
        rate
            1/η, see `rate_of`; a tensor where a CUDA graph reads it.
        kept
            What the rule keeps of the step; needed where the laws of the rule are to be tested.
        """
        buffer, metric = kept.buffer, self._in_metric
        if metric is not None:
            gradient, buffer = gradient * metric, None if buffer is None else buffer * metric
        rest = kept.moments, self._ratio, self._shrink, kept.decay, kept.ascent
        return Step(self._before, theta.detach(), gradient, rate, buffer, *rest)

    @torch.no_grad()
    def after(
        self,
        step: Step,
        loss: Float[Tensor, ""],
        row: Mapping[str, float],
        seen: Seen = Seen(),  # noqa: B008  (nothing can change it)
        *,
        norms: bool = True,
    ) -> None:
        """Record one row: the charges at θ_k and the drives of a step.

        Parameters
        ----------
        loss
            The batch loss at θ_k; stays on the device.
        row
            Step and hyperparameters, the columns of ``/steps`` that the host knows.
        seen
            What happened to the step's gradient and update.
        norms
            Whether to measure the Frobenius norms of matrix-valued charges and how far the rule leans on generators;
            NaN otherwise.
        """
        self.measure(step, loss, seen, self.block.slot(), norms=norms)
        self.block.add(row)

    def mover(self, theta: Float[Tensor, " parameters"]) -> Mover | None:
        """What takes steps in the pass that measures them, if all that is recorded can be had from it.

        Of how far the rule leans it knows nothing: rows with that need `before` and `after`.
        """
        return None if self._needs_vectors else self._forms.mover(theta)

    def follower(self, theta: Float[Tensor, " parameters"]) -> Mover | None:
        """What reads steps that somebody took where the parameters are, if all that is recorded can be had from it.

        As of a mover, rows with how far the rule leans need `before` and `after`.
        """
        differs = self._in_metric is not None or self._shrink is not None
        return None if self._needs_vectors or differs else self._forms.follower(theta)

    @property
    def _needs_vectors(self) -> bool:
        return self._earlier.theta is not None or self._beside.needs_vectors

    def advance(
        self,
        by: Mover[M],
        step: M | Taken,
        loss: float,
        row: Mapping[str, float],
        seen: Seen | None = None,
        *,
        norms: bool = True,
    ) -> None:
        """Take or follow a step and record its row: all of `before`, the optimiser's step and `after`.

        `loss` is on the host; `row`, `seen` and `norms` are as in `after`.
        """
        into, arrays, number = self.block.slot(), self.block.room.arrays, self.block.filled
        arrays.loss[number] = loss
        if seen is not None:
            seen.write(into)
        self._beside.evaluate_at(by.theta, into, arrays, number, norms=norms)
        self._evaluate(lambda forms: by.measure(step, forms), into.ring)
        if self._apart is not None:
            self._apart.bring_home(into, rate_of(row["lr"]))
        self.block.add(row)

    @torch.no_grad()
    def measure(self, step: Step, loss: Float[Tensor, ""], seen: Seen, into: OnDevice, *, norms: bool) -> None:
        """The part of `after` that a CUDA graph holds: tensors at fixed places, 1/η among them, no Python's doing."""
        step = self._earlier.with_flip(step)
        into.loss.copy_(loss.detach())
        seen.write(into)
        self._evaluate(lambda forms: self._forms.evaluate(step, forms), into.ring)
        if self._apart is not None:
            self._apart.bring_home(into, step.rate)
        self._earlier.write_work(step, into.work)
        self._beside.evaluate(step, into, norms=norms)

    def keep(self, measured: OnDevice, row: Mapping[str, float]) -> None:
        """The rest of it: record what `measure` left."""
        torch._foreach_copy_(list(self.block.slot()), list(measured))
        self.block.add(row)

    def _evaluate(self, forms: Callable[[Tensor], object], ring: Tensor) -> None:
        """Write the signals of what is recorded: `forms` evaluates those of all charges."""
        of_step = ring[: -len(NOISE_SIGNALS)] if self._has_noise else ring  # a slice costs a small step a part in 500
        if self._select is None:
            forms(of_step)
        else:
            forms(self._every)
            self._select.combine(self._every, of_step)
        if self._has_noise and self.noise is not None:
            torch.stack(self.noise, out=ring[-len(NOISE_SIGNALS) :, self._norms.count :])

    @torch.no_grad()
    def drive(
        self, theta: Float[Tensor, " parameters"], gradient: Float[Tensor, " parameters"]
    ) -> Float64[Tensor, " charges"]:
        """The form gᵀSg of all recorded charges."""
        ring = torch.zeros_like(self.block.room.parts.ring[0])
        gradient = gradient.to(theta.dtype)
        step = Step(theta, theta, gradient if self._in_metric is None else gradient * self._in_metric, 0.0)
        self._evaluate(lambda forms: self._forms.evaluate(step, forms), ring)
        return ring[self.signals.index("drive_gradient"), self._norms.count :].clone()

    @property
    def is_full(self) -> bool:
        """Whether the block must be written before the next row."""
        return self.block.is_full

    def write(
        self, record: RecordWriter | BackgroundWriter, *, cut: bool = True, until: Float[Tensor, ""] | None = None
    ) -> None:
        """Hand the measured rows to a record, with `cut` up to the first that is not finite, and start a new block.

        `until`, a step on the device, counts as not finite, and so do all later ones: rows may not see every step.

        What became of them is in ``block.broken_at`` and ``block.last_loss`` once the record has them.
        """
        self.block.write(record, self._named, cut=cut, until=until)

    def _named(self, measured: OnHost) -> tuple[Columns, dict[str, Columns]]:
        """What of ``/steps`` is made of it; signals, norms and parameters of every family, and of tensors, by name."""
        charges = {
            n: {s: measured.ring[:, i, at] for i, s in enumerate(self.signals) if s in self._recorded[n].signals}
            for n, at in self._columns.items()
        }
        self._beside.add_to(charges, measured)
        of_steps, norms = self._norms.split(measured)
        rules = {} if self._apart is None else self._apart.columns(measured)
        return of_steps, {**charges, **norms, **rules}
