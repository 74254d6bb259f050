"""Charges on the CPU: every parameter is read once, and its row and column sums come out of that one pass.

Where the step is one of SGD that is still to be taken, that pass is the update itself.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.charges.cpu_adam import SIGNALS as ADAMS
from neuralmech.charges.cpu_adam import AdamMover, AdamSums, moves_like_adam
from neuralmech.charges.cpu_kernels import (
    add_pieces,
    close,
    put_together,
    sum_pairs,
    sum_up,
    take_alone,
    take_beside,
)
from neuralmech.charges.cpu_rows import COLUMNS, Into
from neuralmech.charges.cpu_strips import Addresses, compressed, in_threads, parameters_of, strips, threads_for
from neuralmech.charges.cpu_trial import trial
from neuralmech.charges.plan import (
    NO_ROWS,
    Plan,
    Rectangles,
    WholeRows,
    together,
    whole_rows,
)
from neuralmech.charges.step import FORMS, MAIN, Motion, Mover, Step, rate_of


class Cpu:
    """All charges by compiled code; `signals` begin with `MAIN`, which one pass has the sums of."""

    def __init__(self, plan: Plan, signals: Sequence[str], device: torch.device | None = None) -> None:
        self._plan, self._signals = plan, tuple(signals)
        self._split, self._combine = plan.quadratic.charges, compressed(plan.quadratic.combine)
        self._rest = plan.translation.pieces, compressed(plan.translation.entries)
        self._into = _into(len(signals), plan.quadratic.sums, 0, plan.quadratic.table)
        self._has_main = self._signals[: len(MAIN)] == MAIN
        self._adam = AdamSums(plan) if self._signals[: len(ADAMS)] == ADAMS else None

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write the forms to `out`."""
        if self._adam is not None and step.moments is not None:
            self._adam.evaluate(step, out)
            first = len(ADAMS)
        elif self._has_main:
            self._sum_up(step, out.numpy())
            first = len(MAIN)
        else:
            first = 0
        if first < len(self._signals):
            self._sum_pairs(step, first, out.numpy())

    def _sum_up(self, step: Step, out: NDArray) -> None:
        """Those of `MAIN`."""
        vectors = tuple(v.detach().numpy() for v in (step.before, step.after, step.gradient))
        if self._split:
            sum_up(self._plan.quadratic.table, vectors, tuple(self._into))
        main = slice(len(MAIN))
        close(float(step.rate), self._combine, self._into.sums[main], NO_ROWS, vectors, self._rest, out[main])

    def _sum_pairs(self, step: Step, first: int, out: NDArray) -> None:
        """Those behind the first ones, each in a pass of its own."""
        vectors: dict[str, NDArray] = {}
        for i, signal in enumerate(self._signals[first:], first):
            form = FORMS[signal]
            for name in {form.x, form.y, *([form.z] if form.z else [])} - vectors.keys():
                vectors[name] = step.vector(name).numpy()
            if self._split:
                sum_pairs(
                    vectors[form.x], vectors[form.y], self._plan.quadratic.table, self._into.sums[i], self._into.columns
                )
            if form.z is not None and self._plan.translation.charges:
                add_pieces(vectors[form.z], *self._rest, out[i, self._split :])
            else:
                out[i, self._split :] = 0.0
        put_together(self._combine, self._into.sums[first:], out[first:])

    def mover(self, theta: Tensor, kept: Collection[str] = ()) -> Mover | None:
        """What takes steps of SGD, where `MAIN` is wanted, or of Adam, where `cpu_adam.SIGNALS` are.

        None where more is wanted, or this machine computes other bits than PyTorch.
        """
        if self._signals == MAIN and moves_like_torch(theta.dtype):
            return CpuMover(self._plan, theta, kept)
        if self._signals == ADAMS and moves_like_adam(theta.dtype):
            return AdamMover(self._plan, theta, kept)
        return None


class CpuMover:
    """Takes steps of SGD and, if asked, writes all of their charges."""

    def __init__(self, plan: Plan, theta: Tensor, kept: Collection[str] = ()) -> None:
        rows = whole_rows(plan, plan.quadratic.sums)
        pieces = np.concatenate([rows.rest.pieces["start"], rows.rest.entries.indices])
        self.theta = theta
        self._pass = OnePass(plan, rows, theta, {*kept, *parameters_of(pieces, plan.layout)})
        self._weighed, self._rest = rows.table, (rows.rest.pieces, compressed(rows.rest.entries))
        self._combine = compressed(plan.quadratic.combine)

    def move(self, motion: Motion) -> None:
        """Take a step, and measure nothing."""
        self._pass.move(motion, measured=False)

    def measure(self, motion: Motion, out: Float64[Tensor, "signals charges"]) -> Step:
        """Take a step and write its forms to `out`."""
        one_pass, rate = self._pass, rate_of(motion.lr)
        one_pass.move(motion, measured=True)
        if len(one_pass.rest):
            sum_up(one_pass.rest, one_pass.arrays, tuple(one_pass.into))
        sums = one_pass.into.sums
        close(rate, self._combine, sums, self._weighed, one_pass.arrays, self._rest, out.numpy())
        return Step(one_pass.before, self.theta, one_pass.gradient, rate)


class OnePass:
    """SGD's update, and the sums that charges are made of, in one pass over the parameters.

    Parameters
    ----------
    plan
        What is to be summed.
    rows
        Of its translation charges, what is summed row by row, each times a coefficient.
    theta
        θ, flat, changed in place.
    kept
        Parameters whose θ_k and g are needed after the step too.
    threads
        How many share the work; by default what PyTorch has, if there is enough to do.

    Attributes
    ----------
    into
        The first four rows of its sums are those of θ², (ηu)², g² and θg; behind those of the plan, the first three
        are those of θ, ηu and g over weighed rows.
    before, gradient
        θ_k and g, flat, valid where they are kept.
    arrays
        θ_k, θ_{k+1} and g; see `Vectors`.
    rest
        Rectangles of the plan that have to be summed from there.
    """

    def __init__(
        self, plan: Plan, rows: WholeRows, theta: Tensor, kept: Collection[str], threads: int | None = None
    ) -> None:
        layout, sums = plan.layout, plan.quadratic.sums + rows.sums
        threads = threads or threads_for(layout)
        cut = strips(plan.quadratic.table, rows.table, sums, layout, kept, threads)
        self.before, self.gradient, self.rest = torch.empty_like(theta), torch.empty_like(theta), cut.rest
        self.arrays = tuple(v.numpy() for v in (self.before, theta.detach(), self.gradient))
        self._kind = self.arrays[0].dtype.type
        self._no_buffer, self._coefficients = np.empty(0, dtype=self._kind), rows.coefficients
        self._addresses = Addresses(layout, theta)
        self.into = _into(len(MAIN), sums, cut.shared, together([*cut.parts, cut.rest]))
        own = [self.into, *(self.into._replace(columns=np.zeros_like(self.into.columns)) for _ in cut.parts[1:])]
        self._parts = [(part, _spare(part, self._kind), tuple(i)) for part, i in zip(cut.parts, own, strict=True)]
        self._join = cut.join
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def move(self, motion: Motion, *, measured: bool) -> None:
        """Take the step; with `measured` write the sums, and keep what is to be kept."""
        addresses, _held = self._addresses.of(motion.gradients)
        buffer = self._no_buffer if motion.buffer is None else motion.buffer.numpy()
        kind = self._kind
        rates = kind(motion.lr), kind(motion.momentum), kind(motion.weight_decay)
        calls = [
            (part, self.arrays, (addresses, buffer, spare, rates, measured), self._coefficients, into)
            for part, spare, into in self._parts
        ]
        if self._pool is None:
            take_alone(*calls[0])
            return
        in_threads(self._pool, take_beside, calls)
        if measured:
            self._join(self.into.sums, self.into.shared)


def _into(signals: int, sums: int, shared: int, table: Rectangles) -> Into:
    """Room for sums, and for the columns of the widest rectangle of a table."""
    width = table["columns"].max(initial=1)
    return Into(np.zeros((signals, sums)), np.zeros((len(MAIN), shared)), np.zeros((COLUMNS, width)))


def _spare(part: Rectangles, kind: type) -> NDArray:
    """Room for the momenta of two rows, or of all that have one entry, where there are none."""
    momenta = np.where(part["columns"] == 1, part["rows"], 2 * part["columns"])
    return np.zeros(momenta.max(initial=1), dtype=kind)


@functools.cache
def moves_like_torch(dtype: torch.dtype) -> bool:
    """Whether compiled code gives the very bits of PyTorch's fused SGD on this machine, with momentum and without.

    Compilers may round x·y + z once or twice, and PyTorch's was another one. Within PyTorch the last entries of each
    thread's share, those that fill no vector register, are rounded differently; here they are not.
    """
    return _moves_like_torch(dtype, 0.0) and _moves_like_torch(dtype, 0.9)


def _moves_like_torch(dtype: torch.dtype, momentum: float) -> bool:
    plan, theta, gradients = trial(dtype)
    ours, theirs = theta.flatten().clone(), torch.nn.Parameter(theta)
    optimizer = torch.optim.SGD([theirs], lr=0.013, momentum=momentum, weight_decay=5e-4, fused=True)
    buffer = torch.zeros_like(ours) if momentum else None
    one_pass = OnePass(plan, whole_rows(plan, plan.quadratic.sums), ours, ())
    for step, gradient in enumerate(gradients):
        theirs.grad = gradient
        optimizer.step()
        one_pass.move(Motion([gradient], buffer, 0.013, momentum, 5e-4), measured=step % 2 == 0)
    same = buffer is None or torch.equal(buffer, optimizer.state[theirs]["momentum_buffer"].flatten())
    return same and torch.equal(ours, theirs.detach().flatten())
