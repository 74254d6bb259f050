"""The handwritten digits that ship with scikit-learn: 1,797 real 8×8 images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from neuralmech.checks import check_at_least, check_fraction, check_share
from neuralmech.data.dataset import Dataset, split
from neuralmech.data.options import ResidencyOptions


@dataclass
class DigitsOptions(ResidencyOptions):
    """Batch size in samples; `test_fraction` of the images is held out; `label_noise`: share of labels redrawn."""

    name: str = "digits"
    batch_size: int = 64
    test_fraction: float = 0.2
    label_noise: float = 0.0

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_at_least("data.batch_size", self.batch_size, 2)
        check_fraction("data.test_fraction", self.test_fraction)
        check_share("data.label_noise", self.label_noise)


def load_digits(options: DigitsOptions) -> Dataset:
    """Load the digits, standardised, as images (1, 8, 8)."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float64).unsqueeze(1)
    y = torch.tensor(bunch.target, dtype=torch.int64)
    return split((x - x.mean()) / x.std(), y, options.test_fraction, classes=10)
