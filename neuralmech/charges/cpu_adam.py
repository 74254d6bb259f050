"""Adam on the CPU: the signals of its laws in one pass over θ, g, m and v.

Where the step is still to be taken, that pass is the update itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.charges.cpu_adam_kernels import (
    PRODUCTS,
    add_translations,
    finish,
    follow_adam,
    sum_strips,
    take_step,
)
from neuralmech.charges.cpu_kernels import close
from neuralmech.charges.cpu_rows import Into
from neuralmech.charges.cpu_strips import (
    Addresses,
    apart,
    beside,
    compressed,
    in_threads,
    parameters_of,
    strips,
    threads_for,
)
from neuralmech.charges.cpu_trial import trial
from neuralmech.charges.plan import NO_ROWS, Plan
from neuralmech.charges.step import MAIN, AdamMotion, Moments, Step, Taken, moments_of, rate_of

Passed = tuple[tuple[NDArray, ...], tuple[float, float], Moments]  # θ_k, θ_{k+1}, g, m and v, of w, and the moments
SIGNALS = (*MAIN, "rule_work", "metric_value", "metric_carried", "metric_drive")


class AdamSums:
    """The signals `SIGNALS` of all charges of a plan, in threads.

    Parameters
    ----------
    plan
        What is to be summed.
    kept
        Parameters whose θ_k and g a mover has to keep; one that the plan reads twice is kept, too.
    """

    def __init__(self, plan: Plan, kept: Collection[str] = ()) -> None:
        quadratic, self._diagonal = plan.quadratic, plan.quadratic.charges
        self._combine = compressed(quadratic.combine)
        self._entries, threads = compressed(plan.translation.entries), threads_for(plan.layout)
        self._no_pieces = plan.translation.pieces[:0]
        self._pieces = apart(plan.translation.pieces, threads)
        cut = strips(quadratic.table, NO_ROWS, quadratic.sums, plan.layout, kept, threads)
        self._sums, self._shared = np.zeros((PRODUCTS, quadratic.sums)), np.zeros((PRODUCTS, cut.shared))
        self.parts = [(part, self._into(part)) for part in cut.parts]
        self.again = [(cut.rest, self._into(cut.rest))] if len(cut.rest) else []
        self._join = cut.join
        self._pool = beside(threads)

    def _into(self, table: NDArray) -> tuple[NDArray, ...]:
        return tuple(Into(self._sums, self._shared, np.zeros((PRODUCTS, table["columns"].max(initial=1)))))

    def evaluate(self, step: Step, out: Float64[Tensor, "signals charges"]) -> None:
        """Write the signals to the first rows of `out`."""
        moments = step.moments
        assert moments is not None
        flat = (step.before, step.after, step.gradient, moments.mean, moments.square)
        of = tuple(v.detach().numpy() for v in flat)
        ratio, metric = None if step.ratio is None else step.ratio.numpy(), metric_of(moments, of[0].dtype.type)
        self.run(sum_strips, self.parts, of, ratio, metric)
        self.close(of, ratio, metric, step, out)

    def run(self, kernel: Callable[..., object], parts: list[tuple], *arguments: object) -> None:
        """Call compiled code for each part of the parameters."""
        in_threads(self._pool, kernel, [(table, *arguments, into) for table, into in parts])

    def close(
        self,
        of: tuple[Float[NDArray, " parameters"], ...],
        ratio: Float[NDArray, " parameters"] | None,
        metric: tuple[float, float],
        step: Step,
        out: Float64[Tensor, "signals charges"],
    ) -> None:
        """Sum what lies on parameters that have been summed once, and make charges of all sums."""
        assert step.moments is not None
        if self.again:
            self.run(sum_strips, self.again, of, ratio, metric)
        self._join(self._sums, self._shared)
        target, rates = out.numpy()[: len(SIGNALS)], (float(step.rate), float(step.moments.correction))
        close(rates[0], self._combine, self._sums, NO_ROWS, of[:3], (self._no_pieces, self._entries), target)
        finish(of, ratio, metric, rates[1], self._diagonal, self._entries, target[len(MAIN) :])
        if len(self._pieces):
            behind = target[:, self._diagonal :]
            in_threads(
                self._pool, add_translations, [(part, of, ratio, metric, rates, behind) for part in self._pieces]
            )


def metric_of(moments: Moments, kind: type) -> tuple[float, float]:
    """√(1 − β₂^t) and ε as numbers of a type."""
    return kind(1 / float(moments.root)), kind(moments.eps)


class AdamMover:
    """Takes steps of Adam and, if asked, writes all of their charges, or those of steps that somebody took.

    θ, flat, is changed in place.
    """

    def __init__(self, plan: Plan, theta: Float[Tensor, " parameters"], kept: Collection[str] = ()) -> None:
        translation = plan.translation
        entries = np.concatenate([translation.pieces["start"], translation.entries.indices])
        self.theta, self._sums = theta, AdamSums(plan, {*kept, *parameters_of(entries, plan.layout)})
        self._addresses = Addresses(plan.layout, theta)
        self._before, self._gradient = torch.empty_like(theta), torch.empty_like(theta)
        self._read: tuple[Tensor, Tensor] | None = None  # m and v of steps that somebody took, where they are kept

    def move(self, motion: AdamMotion, /) -> None:
        """Take a step, and measure nothing."""
        self._take(motion, measured=False)

    def measure(self, step: AdamMotion | Taken, out: Float64[Tensor, "signals charges"], /) -> Step:
        """Take or read a step and write its signals to `out`."""
        of, metric, moments = self._follow(step) if isinstance(step, Taken) else self._take(step, measured=True)
        found = Step(self._before, self.theta, self._gradient, rate_of(step.lr), moments=moments)
        self._sums.close(of, None, metric, found, out)
        return found

    def _take(self, motion: AdamMotion, *, measured: bool) -> Passed:
        (addresses,), _held = self._addresses.of(motion.gradients)
        of = self._arrays(motion.mean, motion.square)
        kind, (first, second), decay = of[0].dtype.type, motion.betas, motion.weight_decay
        moved = 1 - first**motion.taken
        root = math.sqrt(1 - second**motion.taken)  # a power of ½ may be rounded otherwise, and PyTorch's is a root
        shrink, coupled = (1 - motion.lr * decay, 0.0) if motion.decoupled else (1.0, decay)
        back = float(kind(1 - first)) - 1  # of the rounded number
        numbers = (-(motion.lr / moved), shrink, coupled, 1 - first, back, 1 - second, second)
        metric, rates = (kind(root), kind(motion.eps)), tuple(kind(n) for n in numbers)
        self._sums.run(take_step, self._sums.parts, of, (addresses, measured), metric, rates)
        return of, metric, motion.moments()

    def _follow(self, taken: Taken) -> Passed:
        adam = taken.adam
        assert adam is not None
        addresses, _held = self._addresses.of(taken.parameters, taken.gradients, adam.means, adam.squares)
        if self._read is None:
            self._read = torch.zeros_like(self.theta), torch.ones_like(self.theta)
        moments = moments_of(*self._read, adam.betas, adam.taken, adam.eps)
        of = self._arrays(*self._read)
        metric = metric_of(moments, of[0].dtype.type)
        self._sums.run(follow_adam, self._sums.parts, of, addresses, metric)
        return of, metric, moments

    def _arrays(self, mean: Tensor, square: Tensor) -> tuple[NDArray, ...]:
        return tuple(v.detach().numpy() for v in (self._before, self.theta, self._gradient, mean, square))


@functools.cache
def moves_like_adam(dtype: torch.dtype) -> bool:
    """Whether compiled code gives the very bits of PyTorch's fused Adam on this machine, for both kinds of decay.

    For what it depends on see `neuralmech.charges.cpu.moves_like_torch`.
    """
    return all(_moves_like_adam(dtype, kind) for kind in (torch.optim.Adam, torch.optim.AdamW))


def _moves_like_adam(dtype: torch.dtype, kind: Callable[..., torch.optim.Optimizer]) -> bool:
    plan, theta, gradients = trial(dtype)
    ours, theirs = theta.flatten().clone(), torch.nn.Parameter(theta)
    numbers = {"lr": 0.013, "weight_decay": 0.07, "betas": (0.9, 0.995), "eps": 1e-7}
    optimizer, mover = kind([theirs], fused=True, **numbers), AdamMover(plan, ours)
    m, v, out = torch.zeros_like(ours), torch.zeros_like(ours), torch.zeros(len(SIGNALS), plan.quadratic.sums).double()
    for taken, gradient in enumerate(gradients, 1):
        theirs.grad = gradient
        optimizer.step()
        motion = AdamMotion([gradient], m, v, taken=taken, decoupled=kind is torch.optim.AdamW, **numbers)
        if taken % 2:
            mover.move(motion)
        else:
            mover.measure(motion, out)
    state = optimizer.state[theirs]
    pairs = [(ours, theirs.detach()), (m, state["exp_avg"]), (v, state["exp_avg_sq"])]
    return all(torch.equal(mine, other.flatten()) for mine, other in pairs)
