"""Whether every loss so far was finite, without anyone waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor


class FiniteLosses:
    """Counts the steps before the first whose loss is not finite: three small kernels, which a CUDA graph can hold.

    Attributes
    ----------
    until
        The first step whose loss is not finite, or else the step to come; a number on the device.
    """

    def __init__(self, step: int, device: torch.device) -> None:
        self.until = torch.tensor(step, dtype=torch.int64, device=device)
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._zero = torch.zeros_like(self._sum)

    @torch.no_grad()
    def see(self, loss: Tensor) -> None:
        """Count a step. The sum of 0·loss is 0 as long as all were finite, and then NaN for good."""
        self._sum.addcmul_(loss.detach(), self._zero)
        self.until.add_(self._sum.eq(self._zero))

    def broken_at(self, step: int) -> int | None:
        """The first of the steps before `step` whose loss is not finite; None if there is none. Waits."""
        until = int(self.until)
        return until if until < step else None
