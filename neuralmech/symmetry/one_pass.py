"""SGD's update and the sums that charges are made of, in one pass over the parameters: on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.one_pass_kernels import take_alone, take_beside
from neuralmech.symmetry.plan import Ints
from neuralmech.symmetry.strips import Strips, strips

SERIAL = 1 << 20  # parameters below which a second thread costs more than it saves


@dataclass(frozen=True)
class Motion:
    """A step of SGD that is still to be taken: θ ← θ − ηb with b ← βb + g + λθ (without β: b = g + λθ).

    Attributes
    ----------
    theta
        θ, flat, changed in place.
    gradients
        Of the parameters, in the layout's order.
    buffer
        b, flat, changed in place; None without momentum.
    lr, momentum, weight_decay
        η, β, λ.
    """

    theta: Tensor
    gradients: Sequence[Tensor]
    buffer: Tensor | None
    lr: float
    momentum: float
    weight_decay: float


class OnePass:
    """Takes steps of SGD and, if asked, measures them.

    Parameters
    ----------
    blocks, sums
        What is to be summed: those of a `QuadraticPlan`.
    layout
        Where parameters lie in the flat vectors.
    kept
        Parameters whose θ_k and g are needed after the step too.
    threads
        How many share the work; by default what PyTorch has, if there is enough to do.

    Attributes
    ----------
    before, gradient
        θ_k and g, flat, valid where they are kept.
    rest
        Blocks of the plan that have to be summed from there.
    """

    def __init__(
        self,
        blocks: Ints,
        sums: int,
        layout: Layout,
        kept: Collection[str],
        dtype: torch.dtype,
        threads: int | None = None,
    ) -> None:
        threads = threads or (torch.get_num_threads() if layout.size >= SERIAL else 1)
        self._strips: Strips = strips(blocks, sums, layout, kept, threads)
        self.rest = self._strips.rest
        self.before, self.gradient = torch.empty(layout.size, dtype=dtype), torch.empty(layout.size, dtype=dtype)
        self._no_buffer = torch.empty(0, dtype=dtype).numpy()
        self._sums, self._planned = np.zeros((4, self._strips.sums)), sums
        widths = [_scratch_width(part) for part in self._strips.parts]
        self._scratch = [(np.zeros((4, w)), torch.empty(2, w, dtype=dtype).numpy()) for w in widths]
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def move(self, motion: Motion, sums: np.ndarray | None = None) -> None:
        """Take the step; write the sums of θ², (ηu)², g² and θg to `sums` (4, sums), if given."""
        gradients = [g if g.is_contiguous() else g.contiguous() for g in motion.gradients]
        addresses = np.array([g.data_ptr() for g in gradients])
        theta = motion.theta.detach().numpy()
        buffer = self._no_buffer if motion.buffer is None else motion.buffer.numpy()
        kind = theta.dtype.type
        rates = (kind(motion.lr), kind(motion.momentum), kind(motion.weight_decay))
        kept = self.before.numpy(), self.gradient.numpy()
        common = (addresses, theta, buffer, rates, sums is not None, *kept, self._sums)
        self._run(lambda take, k: take(self._strips.parts[k], *common, *self._scratch[k]))
        if sums is not None:
            for first, other, count in self._strips.halves:
                self._sums[:, first : first + count] += self._sums[:, other : other + count]
            sums[:] = self._sums[:, : self._planned]

    def _run(self, part: Callable[[Callable[..., None], int], None]) -> None:
        if self._pool is None:
            part(take_alone, 0)
            return
        others = [self._pool.submit(part, take_beside, k) for k in range(1, len(self._strips.parts))]
        part(take_beside, 0)
        for other in others:
            other.result()


def _scratch_width(part: Ints) -> int:
    """Entries of θ_k that a thread keeps: a row, or all rows of one entry."""
    return int(np.where(part[:, 4] == 1, part[:, 3], part[:, 4]).max(initial=1))


@functools.cache
def moves_like_torch(dtype: torch.dtype, momentum: bool) -> bool:
    """Whether compiled code gives the very bits of PyTorch's fused SGD on this machine.

    Compilers may round x·y + z once or twice, and PyTorch's was another one. Within PyTorch the last entries of each
    thread's share, those that fill no vector register, are rounded differently; here they are not.
    """
    generator = torch.Generator().manual_seed(0)
    theta, *gradients = (torch.randn(1024, dtype=dtype, generator=generator) for _ in range(4))
    ours, beta = theta.clone(), 0.9 if momentum else 0.0
    theirs = torch.nn.Parameter(theta)
    optimizer = torch.optim.SGD([theirs], lr=0.013, momentum=beta, weight_decay=5e-4, fused=True)
    layout = Layout.by_shape({"theta": (1024,)})
    one_pass = OnePass(np.zeros((0, 7), dtype=np.int64), 0, layout, (), dtype)
    buffer = torch.zeros_like(ours) if momentum else None
    for gradient in gradients:
        theirs.grad = gradient
        optimizer.step()
        one_pass.move(Motion(ours, [gradient], buffer, 0.013, beta, 5e-4))
    same = buffer is None or torch.equal(buffer, optimizer.state[theirs]["momentum_buffer"])
    return same and torch.equal(ours, theirs.detach())
