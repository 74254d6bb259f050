"""The order in which a run sees its samples, and every other random number that a batch needs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

CPU = torch.device("cpu")


class Order:
    """Samples of a step, a function of (seed, step) alone: each epoch is a fresh permutation without its remainder."""

    def __init__(self, samples: int, batch_size: int, seed: int, device: torch.device = CPU) -> None:
        self.per_epoch = samples // batch_size
        self._samples, self._batch_size, self._seed, self._device = samples, batch_size, seed, device
        self._permutation = lru_cache(maxsize=1)(self._draw)

    def __call__(self, step: int) -> Tensor:
        """Indices of the step's samples."""
        epoch, position = divmod(step, self.per_epoch)
        return self._permutation(epoch)[position * self._batch_size : (position + 1) * self._batch_size]

    def _draw(self, epoch: int) -> Tensor:
        return moved(torch.randperm(self._samples, generator=generator(self._seed, epoch)), self._device)


def generator(seed: int, *numbers: int) -> torch.Generator:
    """A generator on the CPU that depends on these numbers alone, so that every device draws the same."""
    state = int(np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state % 2**63)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from the host to a device without waiting for what the device is doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
