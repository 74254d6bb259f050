"""Whether every loss so far was finite, without anyone waiting for the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class FiniteLosses:
    """Counts the steps before the first whose loss is not finite.

    On a device by three small kernels, which a CUDA graph can hold; on the CPU, where nobody waits, in Python.
    """

    def __init__(self, step: int, device: torch.device) -> None:
        self._on_host = device.type == "cpu"
        self._steps, self._all = step, True
        self._until = torch.tensor(step, dtype=torch.int64, device=device)
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._zero = torch.zeros_like(self._sum)

    @property
    def until(self) -> Tensor:
        """The first step whose loss is not finite, or else the step to come; a number on the device."""
        return self._until.fill_(self._steps) if self._on_host else self._until

    @torch.no_grad()
    def see(self, loss: Tensor) -> None:
        """Count a step."""
        if self._on_host:
            self._all = self._all and math.isfinite(loss.item())
            self._steps += self._all
            return
        self._sum.addcmul_(loss.detach(), self._zero)  # 0·loss is 0 as long as all were finite, and then NaN for good
        self._until.add_(self._sum.eq(self._zero))

    def broken_at(self, step: int) -> int | None:
        """The first of the steps before `step` whose loss is not finite; None if there is none. Waits."""
        until = int(self.until)
        return until if until < step else None
