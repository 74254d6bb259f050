"""A data set in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralmech.errors import UserError


@dataclass(frozen=True)
class Dataset:
    """Inputs and targets of the training and the held-out part.

    Inputs are real numbers (samples, …) with labels (samples,), or tokens (samples, tokens) with one target for each;
    `classes` is then the size of the vocabulary.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.train_x.shape[1:])

    @property
    def has_tokens(self) -> bool:
        """Whether inputs are indices of tokens, not real numbers."""
        return not self.train_x.is_floating_point()

    def to(self, device: torch.device, dtype: torch.dtype) -> Dataset:
        """Copy to a device, real inputs in a floating-point type."""
        inputs = torch.int64 if self.has_tokens else dtype
        return replace(
            self,
            train_x=self.train_x.to(device, inputs),
            train_y=self.train_y.to(device),
            test_x=self.test_x.to(device, inputs),
            test_y=self.test_y.to(device),
        )

    def check_batch(self, batch_size: int) -> None:
        """Raise a `UserError` if the training part holds fewer samples than a batch."""
        if batch_size > len(self.train_x):
            raise UserError(
                f"data.batch_size={batch_size} is larger than the training data ({len(self.train_x)} samples); "
                "use a smaller batch"
            )


def split(x: Tensor, y: Tensor, test_fraction: float, classes: int, seed: int = 0) -> Dataset:
    """Split off a held-out part, the same one for every seed of a run so that runs compare."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held = round(len(x) * test_fraction)
    if not 0 < held < len(x):
        raise UserError(f"data.test_fraction={test_fraction} holds out {held} of {len(x)} samples; change it")
    test, train = order[:held], order[held:]
    return Dataset(x[train], y[train], x[test], y[test], classes)
