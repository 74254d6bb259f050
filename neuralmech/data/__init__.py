"""Data sets by name, on the device or streamed to it, and batches that depend on (seed, step) alone."""

from __future__ import annotations

from typing import Any

from neuralmech.data.batches import Batches
from neuralmech.data.cifar import load_cifar
from neuralmech.data.custom import CustomOptions, load_custom
from neuralmech.data.dataset import Dataset, in_memory
from neuralmech.data.digits import DigitsOptions, load_digits
from neuralmech.data.images import ImageOptions
from neuralmech.data.mnist import load_mnist
from neuralmech.data.residency import settle
from neuralmech.data.synthetic import SyntheticOptions, make_synthetic
from neuralmech.data.tinyimagenet import load_tiny_imagenet
from neuralmech.data.tokens import TokensOptions, make_tokens

# name → (options, loader)
DATASETS: dict[str, tuple[type, Any]] = {
    "digits": (DigitsOptions, load_digits),
    "synthetic": (SyntheticOptions, make_synthetic),
    "tokens": (TokensOptions, make_tokens),
    "mnist": (ImageOptions, load_mnist),
    "cifar10": (ImageOptions, load_cifar),
    "cifar100": (ImageOptions, load_cifar),
    "tinyimagenet": (ImageOptions, load_tiny_imagenet),
    "_target_": (CustomOptions, load_custom),
}


def load_data(options: Any) -> Dataset:
    """Load the data set that `options` names.

    Raises
    ------
    UserError
        If it cannot be had, or a batch is larger than the training part.
    """
    data = DATASETS[options.name][1](options)
    data.check_batch(options.batch_size)
    return data


def training_batches(data: Dataset, options: Any, seed: int) -> Batches:
    """Batches as the options of the data set say; the sets that are made up have neither augmentation nor noise."""
    noise, augment = getattr(options, "label_noise", 0.0), getattr(options, "augment", None)
    return Batches(data, options.batch_size, seed, noise, augment)


__all__ = [
    "DATASETS", "Batches", "CustomOptions", "Dataset", "DigitsOptions", "ImageOptions", "SyntheticOptions",
    "TokensOptions", "in_memory", "load_data", "settle", "training_batches",
]  # fmt: skip
