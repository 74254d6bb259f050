"""Gaussian inputs labelled by a random teacher."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from neuralmech.checks import check_at_least, check_fraction, check_share
from neuralmech.data.dataset import Dataset, split
from neuralmech.data.options import ResidencyOptions
from neuralmech.errors import UserError


@dataclass
class SyntheticOptions(ResidencyOptions):
    """`size` samples of `shape`, Gaussian; labels are the argmax of a random two-layer teacher's logits.

    `label_noise` is the share of a batch's labels that are drawn anew at every step.
    """

    name: str = "synthetic"
    batch_size: int = 64
    shape: list[int] = field(default_factory=lambda: [1, 8, 8])
    classes: int = 10
    size: int = 2000
    test_fraction: float = 0.2
    seed: int = 0
    label_noise: float = 0.0

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_at_least("data.batch_size", self.batch_size, 2)
        check_at_least("data.classes", self.classes, 2)
        check_at_least("data.size", self.size, 2)
        check_fraction("data.test_fraction", self.test_fraction)
        check_share("data.label_noise", self.label_noise)
        if not self.shape or min(self.shape) < 1:
            raise UserError(f"data.shape={self.shape} is no shape; give positive sizes such as [1,8,8]")


def make_synthetic(options: SyntheticOptions) -> Dataset:
    """Draw inputs and the teacher from ``data.seed``; the run's own seed does not change the data."""
    generator = torch.Generator().manual_seed(options.seed)
    x = torch.randn(options.size, *options.shape, generator=generator, dtype=torch.float64)
    flat = x.flatten(1)
    hidden = torch.randn(flat.shape[1], 32, generator=generator, dtype=torch.float64) / flat.shape[1] ** 0.5
    output = torch.randn(32, options.classes, generator=generator, dtype=torch.float64)
    y = (torch.relu(flat @ hidden) @ output).argmax(dim=1)
    return split(x, y, options.test_fraction, options.classes)
