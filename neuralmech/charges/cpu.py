"""Charges on the CPU: every parameter is read once, and its row and column sums come out of that one pass.

Where the step is one of SGD that is still to be taken, that pass is the update itself.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.charges.cpu_adam import SIGNALS as ADAMS
from neuralmech.charges.cpu_adam import AdamMover, AdamSums, moves_like_adam
from neuralmech.charges.cpu_kernels import add_pieces, close, put_together, sum_pairs, sum_up
from neuralmech.charges.cpu_pass import OnePass, room_for_sums
from neuralmech.charges.cpu_strips import compressed, parameters_of
from neuralmech.charges.cpu_trial import trial
from neuralmech.charges.plan import NO_ROWS, Plan, whole_rows
from neuralmech.charges.step import FORMS, MAIN, Motion, Mover, Step, Taken, rate_of


class Cpu:
    """All charges by compiled code; `signals` begin with `MAIN`, which one pass has the sums of."""

    def __init__(self, plan: Plan, signals: Sequence[str], device: torch.device | None = None) -> None:
        self._plan, self._signals = plan, tuple(signals)
        self._split, self._combine = plan.quadratic.charges, compressed(plan.quadratic.combine)
        self._rest = plan.translation.pieces, compressed(plan.translation.entries)
        self._into = room_for_sums(len(signals), plan.quadratic.sums, 0, plan.quadratic.table)
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

    def mover(self, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> Mover | None:
        """What takes steps of SGD, where `MAIN` is wanted, or of Adam, where `cpu_adam.SIGNALS` are.

        None where more is wanted, or this machine computes other bits than PyTorch.
        """
        if self._signals == MAIN and moves_like_torch(theta.dtype):
            return CpuMover(self._plan, theta, kept)
        if self._signals == ADAMS and moves_like_adam(theta.dtype):
            return AdamMover(self._plan, theta, kept)
        return None

    def follower(self, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> Mover | None:
        """What reads steps that somebody took, where `MAIN` alone is wanted, or of Adam `cpu_adam.SIGNALS`."""
        if self._signals == MAIN:
            return CpuMover(self._plan, theta, kept)
        return AdamMover(self._plan, theta, kept) if self._signals == ADAMS else None


class CpuMover:
    """Takes steps of SGD and, if asked, writes all of their charges, or those of steps of any rule that were taken."""

    def __init__(self, plan: Plan, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> None:
        rows = whole_rows(plan, plan.quadratic.sums)
        pieces = np.concatenate([rows.rest.pieces["start"], rows.rest.entries.indices])
        self.theta = theta
        self._pass = OnePass(plan, rows, theta, {*kept, *parameters_of(pieces, plan.layout)})
        self._weighed, self._rest = rows.table, (rows.rest.pieces, compressed(rows.rest.entries))
        self._combine = compressed(plan.quadratic.combine)

    def move(self, motion: Motion, /) -> None:
        """Take a step, and measure nothing."""
        self._pass.move(motion, measured=False)

    def measure(self, step: Motion | Taken, out: Float64[Tensor, "signals charges"], /) -> Step:
        """Take or read a step and write its forms to `out`."""
        one_pass, rate = self._pass, rate_of(step.lr)
        sums, arrays = one_pass.into.sums, one_pass.arrays
        closing = rate, self._combine, sums, self._weighed, arrays, self._rest, out.numpy()
        if isinstance(step, Taken):
            one_pass.follow(step, closing)
        else:
            one_pass.move(step, measured=True)
            one_pass.close(closing)
        return Step(one_pass.before, self.theta, one_pass.gradient, rate)


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
