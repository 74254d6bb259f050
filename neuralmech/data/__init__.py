"""Data sets by name, held as tensors on the device, and batches that depend on (seed, step) alone."""

from __future__ import annotations

from typing import Any

from neuralmech.data.batches import Batches
from neuralmech.data.dataset import Dataset
from neuralmech.data.digits import DigitsOptions, load_digits
from neuralmech.data.synthetic import SyntheticOptions, make_synthetic
from neuralmech.data.tokens import TokensOptions, make_tokens

# name → (options, loader)
DATASETS: dict[str, tuple[type, Any]] = {
    "digits": (DigitsOptions, load_digits),
    "synthetic": (SyntheticOptions, make_synthetic),
    "tokens": (TokensOptions, make_tokens),
}


def load_data(options: Any) -> Dataset:
    """Load the data set that `options` names.

    Raises
    ------
    UserError
        If a batch is larger than the training part.
    """
    data = DATASETS[options.name][1](options)
    data.check_batch(options.batch_size)
    return data


__all__ = ["DATASETS", "Batches", "Dataset", "DigitsOptions", "SyntheticOptions", "TokensOptions", "load_data"]
