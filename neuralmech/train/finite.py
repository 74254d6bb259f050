"""Whether every loss so far was finite, without anyone waiting for the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class FiniteLosses:
    """Counts the steps before the first whose loss is not finite."""

    def __init__(self, step: int, device: torch.device) -> None:
        self._until = torch.tensor(step, dtype=torch.int64, device=device)
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._zero = torch.zeros_like(self._sum)
        self._are_finite, self._seen = True, 0  # those that `see_here` saw, and how many of them since `until`

    @property
    def until(self) -> Tensor:
        """The first step whose loss is not finite, or else the step to come; a number on the device."""
        if self._seen:
            self._until.add_(self._seen)
            self._seen = 0
        return self._until

    def see(self, loss: Tensor) -> None:
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
