"""Which samples a step sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Batches:
    """Batch of a step, a function of (seed, step) alone: each epoch is a fresh permutation without its remainder.

    With `label_noise` that share of each batch's labels is drawn anew out of `classes`, differently at every step,
    so that the gradient never dies out.

    Examples
    --------
    >>> x = torch.arange(10)
    >>> batches = Batches(x, x, batch_size=5, seed=0)
    >>> sorted(torch.cat([batches(0)[0], batches(1)[0]]).tolist()) == x.tolist()
    True
    >>> torch.equal(batches(0)[0], batches(7)[0])
    False
    """

    def __init__(
        self, x: Tensor, y: Tensor, batch_size: int, seed: int, label_noise: float = 0.0, classes: int = 0
    ) -> None:
        self.per_epoch = len(x) // batch_size
        self._x, self._y = x, y
        self._batch_size, self._seed = batch_size, seed
        self._label_noise, self._classes = label_noise, classes
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the step's batch, on the data's device."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        chosen = self._order[position * self._batch_size : (position + 1) * self._batch_size]
        y = self._y[chosen]
        return self._x[chosen], self._resampled(y, step) if self._label_noise else y

    def _resampled(self, y: Tensor, step: int) -> Tensor:
        """Labels of which a share is drawn anew, afresh at every step."""
        generator = self._generator(step, 1)
        drawn = torch.randint(self._classes, y.shape, generator=generator).to(y.device)
        redrawn = torch.rand(y.shape, generator=generator).to(y.device) < self._label_noise
        return torch.where(redrawn, drawn, y)

    def _generator(self, *numbers: int) -> torch.Generator:
        state = int(np.random.SeedSequence([self._seed, *numbers]).generate_state(1, np.uint64)[0])
        return torch.Generator().manual_seed(state % 2**63)

    def _permutation(self, epoch: int) -> Tensor:
        generator = self._generator(epoch)
        return torch.randperm(len(self._x), generator=generator).to(self._x.device)
