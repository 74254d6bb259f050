"""Losses and data that are not finite: seen without anyone waiting for the device, and named."""

from __future__ import annotations

import copy
import math
from contextlib import closing
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from neuralmech.data import named, training_batches
from neuralmech.data.parts import Samples
from neuralmech.errors import UserError
from neuralmech.outputs import output_of

if TYPE_CHECKING:
    from neuralmech.training.run import Run


class FiniteLosses:
    """Counts the steps before the first whose loss is not finite."""

    def __init__(self, step: int, device: torch.device) -> None:
        self._until = torch.tensor(step, dtype=torch.int64, device=device)
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._zero = torch.zeros_like(self._sum)
        self._are_finite, self._seen = True, 0  # those that `see_here` saw, and how many of them since `until`

    @property
    def until(self) -> Float[Tensor, ""]:
        """The first step whose loss is not finite, or else the step to come; a number on the device."""
        if self._seen:
            self._until.add_(self._seen)
            self._seen = 0
        return self._until

    def see(self, loss: Float[Tensor, ""]) -> None:
        """Count a step by three small kernels, which a CUDA graph can hold."""
        self._sum.addcmul_(loss.detach(), self._zero)  # 0·loss is 0 as long as all were finite, and then NaN for good
        self._until.add_(self._sum.eq(self._zero))

    def see_here(self, loss: float) -> None:
        """Count a step of a run on the CPU, where nobody waits and kernels cost more than Python."""
        self._are_finite = self._are_finite and math.isfinite(loss)
        self._seen += self._are_finite

    def broken_at(self, step: int) -> int | None:
        """The first of the steps before `step` whose loss is not finite; None if there is none. Waits."""
        until = int(self.until)
        return until if until < step else None


def check_data(run: Run) -> None:
    """Raise a `UserError` for data in memory that no loss can be had of.

    Inputs that are not finite, of which the model's outputs are not either; no target that counts.
    """
    data, key = run.setup.data, named(run.config.data)
    for name, part in (("training", data.train), ("held-out", data.test)):
        if not isinstance(part, Samples):
            continue
        broken = _broken(part.x, part.y)
        if len(broken) and not _is_finite(run, part.x[broken[:2]]):
            raise UserError(
                f"{key}: {len(broken)} of {len(part)} {name} samples hold NaN or inf, the first of them "
                f"sample {int(broken[0])}; mend them or leave them out"
            )
        if not run.config.loss.weight_of(part.y) > 0:
            raise UserError(f"{key}: no target of the {name} samples counts; give some that do")


def remedy(run: Run, step: int) -> str:
    """What to do about a run that is not finite at a step: to mend its data if it met some that are not, or else η."""
    with closing(training_batches(run.setup.data, run.config.data, run.config.seed)) as batches:  # whole ones
        for k in range(max(step - 1, 0), step + 1):
            broken = _broken(*batches(k))
            if not len(broken):
                continue
            number, key = int(batches.samples(k)[broken[0]]), named(run.config.data)
            return f"training sample {number} of {key}, met at step {k}, holds NaN or inf: mend the data"
    return "lower optim.lr"


def _broken(x: Tensor, y: Tensor) -> Tensor:
    """Numbers of the samples that hold some that are not finite."""
    wrong = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for values in (x, y):
        if values.is_floating_point():
            wrong |= ~values.isfinite().flatten(1).all(dim=1) if values.dim() > 1 else ~values.isfinite()
    return wrong.nonzero().flatten()


@torch.no_grad()
def _is_finite(run: Run, x: Tensor) -> bool:
    """Whether a copy of the model takes such samples all the same, as those that are made for missing values do."""
    twin = copy.deepcopy(run.setup.model).eval()
    return bool(output_of(twin(run.setup.data.inputs(x))).isfinite().all())
