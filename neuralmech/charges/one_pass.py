"""SGD's update and the sums that charges are made of, in one pass over the parameters: on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralmech.charges.one_pass_kernels import COLUMNS, take_alone, take_beside
from neuralmech.charges.plan import Ints
from neuralmech.charges.step import Motion
from neuralmech.charges.strips import Strips, strips
from neuralmech.charges.translation_plan import WholeRows, translation_plan, whole_rows
from neuralmech.symmetry.layout import Layout

SERIAL = 1 << 20  # parameters below which a second thread costs more than it saves


class OnePass:
    """Takes steps of SGD and, if asked, measures them.

    Parameters
    ----------
    blocks
        What is to be summed, those of a `QuadraticPlan`.
    sums
        Where to: its first four rows (…, sums) are those of θ², (ηu)², g² and θg.
    weighed
        What is to be summed row by row, each times a coefficient: the first three rows of `sums` are those of θ, ηu
        and g.
    layout
        Where parameters lie in the flat vectors.
    kept
        Parameters whose θ_k and g are needed after the step too.
    theta
        θ, flat, changed in place.
    threads
        How many share the work; by default what PyTorch has, if there is enough to do.

    Attributes
    ----------
    before, gradient
        θ_k and g, flat, valid where they are kept.
    vectors
        θ_k, θ_{k+1} and g as arrays.
    rest
        Blocks of the plan that have to be summed from there.
    """

    def __init__(
        self,
        blocks: Ints,
        weighed: WholeRows,
        sums: NDArray,
        layout: Layout,
        kept: Collection[str],
        theta: Tensor,
        threads: int | None = None,
    ) -> None:
        threads = threads or (torch.get_num_threads() if layout.size >= SERIAL else 1)
        self._strips: Strips = strips(blocks, weighed.blocks, sums.shape[1], layout, kept, threads)
        self._coefficients = weighed.coefficients
        self.rest = self._strips.rest
        self.before, self.gradient = torch.empty_like(theta), torch.empty_like(theta)
        self.vectors = self.before.numpy(), theta.detach().numpy(), self.gradient.numpy()
        self._kind = self.vectors[0].dtype.type
        self._no_buffer = np.empty(0, dtype=self._kind)
        self._sums, self._shared = sums, np.zeros((4, self._strips.shared))
        self._scratch = [_scratch(part, self._kind) for part in self._strips.parts]
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def move(self, motion: Motion, *, measured: bool) -> None:
        """Take the step; with `measured` write the sums, and keep what is to be kept."""
        gradients = [g if g.is_contiguous() else g.contiguous() for g in motion.gradients]
        addresses = np.array([g.data_ptr() for g in gradients])
        buffer = self._no_buffer if motion.buffer is None else motion.buffer.numpy()
        kind = self._kind
        rates = (kind(motion.lr), kind(motion.momentum), kind(motion.weight_decay))
        before, theta, gradient = self.vectors
        common = (addresses, theta, buffer, rates, measured, before, gradient, self._coefficients)
        common = (*common, self._sums, self._shared)
        if self._pool is None:
            take_alone(self._strips.parts[0], *common, *self._scratch[0])
            return
        parts = list(zip(self._strips.parts, self._scratch, strict=True))
        others = [self._pool.submit(take_beside, part, *common, *scratch) for part, scratch in parts[1:]]
        try:
            take_beside(parts[0][0], *common, *parts[0][1])
        finally:
            wait(others)  # whatever happens here: they read gradients at their addresses
        for other in others:
            other.result()
        for first, other, count in self._strips.halves if measured else ():
            self._sums[:4, first : first + count] += self._shared[:, other : other + count]


def _scratch(part: Ints, kind: type) -> tuple[NDArray, NDArray]:
    """Room for the columns of a strip, and for the momenta of two rows, or of all that have one entry."""
    rows, widths = part[:, 3], part[:, 4]
    momenta = np.where(widths == 1, rows, 2 * widths)
    return np.zeros((COLUMNS, widths.max(initial=1))), np.zeros(momenta.max(initial=1), dtype=kind)


@functools.cache
def moves_like_torch(dtype: torch.dtype, momentum: bool) -> bool:
    """Whether compiled code gives the very bits of PyTorch's fused SGD on this machine.

    Compilers may round x·y + z once or twice, and PyTorch's was another one. Within PyTorch the last entries of each
    thread's share, those that fill no vector register, are rounded differently; here they are not.
    """
    generator = torch.Generator().manual_seed(0)
    theta, *gradients = (torch.randn(32, 32, dtype=dtype, generator=generator) for _ in range(5))
    ours, beta = theta.flatten().clone(), 0.9 if momentum else 0.0
    theirs = torch.nn.Parameter(theta)
    optimizer = torch.optim.SGD([theirs], lr=0.013, momentum=beta, weight_decay=5e-4, fused=True)
    rows_and_columns = np.array([[0, 1, 32, 32, 1, 0, 32]])
    layout = Layout.by_shape({"theta": (32, 32)})
    nothing = whole_rows(translation_plan((), layout), rows_and_columns, 0, layout)
    one_pass = OnePass(rows_and_columns, nothing, np.zeros((4, 64)), layout, (), ours)
    buffer = torch.zeros_like(ours) if momentum else None
    for step, gradient in enumerate(gradients):
        theirs.grad = gradient
        optimizer.step()
        one_pass.move(Motion([gradient], buffer, 0.013, beta, 5e-4), measured=step % 2 == 0)
    same = buffer is None or torch.equal(buffer, optimizer.state[theirs]["momentum_buffer"].flatten())
    return same and torch.equal(ours, theirs.detach().flatten())
