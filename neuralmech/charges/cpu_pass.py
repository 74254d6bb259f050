"""One pass over the parameters on the CPU, in threads: an update of SGD or one that somebody took, and its sums."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.charges.cpu_kernels import close, follow_and_close, follow_step, sum_up, take_alone, take_beside
from neuralmech.charges.cpu_rows import COLUMNS, Into
from neuralmech.charges.cpu_strips import Addresses, beside, in_threads, strips, threads_for
from neuralmech.charges.plan import Plan, Rectangles, WholeRows, together
from neuralmech.charges.step import MAIN, Motion, Taken


class OnePass:
    """SGD's update or one that was taken, and the sums that charges are made of, in one pass over the parameters.

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
        θ_k, θ_{k+1} and g; see `StepVectors`.
    rest
        Rectangles of the plan that have to be summed from there.
    """

    def __init__(
        self,
        plan: Plan,
        rows: WholeRows,
        theta: Float[Tensor, " parameters"],
        kept: Collection[str],
        threads: int | None = None,
    ) -> None:
        layout, sums = plan.layout, plan.quadratic.sums + rows.sums
        threads = threads or threads_for(layout)
        cut = strips(plan.quadratic.table, rows.table, sums, layout, kept, threads)
        self.before, self.gradient, self.rest = torch.empty_like(theta), torch.empty_like(theta), cut.rest
        self.arrays = tuple(v.numpy() for v in (self.before, theta.detach(), self.gradient))
        self._kind = self.arrays[0].dtype.type
        self._no_buffer, self._coefficients = np.empty(0, dtype=self._kind), rows.coefficients
        self._addresses = Addresses(layout, theta)
        self.into = room_for_sums(len(MAIN), sums, cut.shared, together([*cut.parts, cut.rest]))
        own = [self.into, *(self.into._replace(columns=np.zeros_like(self.into.columns)) for _ in cut.parts[1:])]
        self._parts = [(part, _spare(part, self._kind), tuple(i)) for part, i in zip(cut.parts, own, strict=True)]
        self._join = cut.join
        self._pool = beside(threads)

    def move(self, motion: Motion, *, measured: bool) -> None:
        """Take the step; with `measured` write the sums, and keep what is to be kept."""
        (addresses,), _held = self._addresses.of(motion.gradients)
        buffer = self._no_buffer if motion.buffer is None else motion.buffer.numpy()
        kind = self._kind
        rates = kind(motion.lr), kind(motion.momentum), kind(motion.weight_decay)
        self._run(
            take_beside if self._pool else take_alone,
            [(addresses, buffer, spare, rates, measured) for _, spare, _ in self._parts],
        )
        if measured:
            self._join(self.into.sums, self.into.shared)

    def follow(self, taken: Taken, closing: tuple | None = None) -> None:
        """The same sums of a step that somebody took; θ becomes θ_{k+1}.

        With `closing`, the arguments of `close`, charges are made of them.
        """
        addresses, _held = self._addresses.of(taken.parameters, taken.gradients)
        if closing and self._pool is None and not len(self.rest):  # in one call: each costs a small step
            part, _, into = self._parts[0]
            follow_and_close((part, self.arrays, addresses, self._coefficients, into), closing)
            return
        self._run(follow_step, [addresses] * len(self._parts))
        self._join(self.into.sums, self.into.shared)
        if closing:
            self.close(closing)

    def close(self, closing: tuple) -> None:
        """Sum what lies on parameters that have been summed once, and make charges of all sums."""
        if len(self.rest):
            sum_up(self.rest, self.arrays, tuple(self.into))
        close(*closing)

    def _run(self, kernel: Callable[..., object], steps: Sequence[object]) -> None:
        calls = [
            (part, self.arrays, step, self._coefficients, into)
            for (part, _, into), step in zip(self._parts, steps, strict=True)
        ]
        if self._pool is None:
            kernel(*calls[0])
        else:
            in_threads(self._pool, kernel, calls)


def room_for_sums(signals: int, sums: int, shared: int, table: Rectangles) -> Into:
    """Room for sums, and for the columns of the widest rectangle of a table."""
    width = table["columns"].max(initial=1)
    return Into(np.zeros((signals, sums)), np.zeros((len(MAIN), shared)), np.zeros((COLUMNS, width)))


def _spare(part: Rectangles, kind: type) -> NDArray:
    """Room for the momenta of two rows, or of all that have one entry, where there are none."""
    momenta = np.where(part["columns"] == 1, part["rows"], 2 * part["columns"])
    return np.zeros(momenta.max(initial=1), dtype=kind)
