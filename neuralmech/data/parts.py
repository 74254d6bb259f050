"""The samples of a part of a data set, in memory or read one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as Indexed
from torch.utils.data import default_collate


@dataclass(frozen=True)
class Samples(Indexed):
    """Inputs (samples, …) and targets (samples, …) in memory: real numbers, bytes of images (uint8), or tokens."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some samples, as stored."""
        chosen = torch.from_numpy(indices)
        return self.x[chosen], self.y[chosen]

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.x.nbytes + self.y.nbytes

    def to(self, device: torch.device, dtype: torch.dtype) -> Samples:
        """Copy to a device: bytes as they are, real numbers in a floating-point type, tokens as int64."""
        kept = torch.uint8 if self.x.dtype == torch.uint8 else dtype if self.x.is_floating_point() else torch.int64
        return Samples(self.x.to(device, kept), self.y.to(device))


@dataclass(frozen=True)
class Items(Indexed):
    """A torch data set of pairs (input, target) that is read item by item, when a batch is wanted."""

    items: Any

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some samples."""
        x, y = default_collate([tuple(self.items[int(i)]) for i in indices])
        return x, y

    @property
    def size(self) -> int:
        """Bytes in memory, if it were all there."""
        x, y = self[np.zeros(1, dtype=np.int64)]
        return len(self) * (x.nbytes + y.nbytes)


Part = Samples | Items
