"""Data sets by name, on the device or streamed to it, and batches that depend on (seed, step) alone."""

from __future__ import annotations

from typing import Any

from neuralmech.data.batches import Batches
from neuralmech.data.builtin import (
    DigitsOptions,
    SyntheticOptions,
    TokensOptions,
    load_digits,
    make_synthetic,
    make_tokens,
)
from neuralmech.data.custom import CustomOptions, load_custom
from neuralmech.data.dataset import Dataset, in_memory, settle
from neuralmech.data.images import ImageOptions, load_cifar, load_mnist, load_tiny_imagenet
from neuralmech.data.targets import fitted
from neuralmech.errors import UserError
from neuralmech.losses import LossLike, as_loss

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


def load_data(options: Any, loss: LossLike = "cross_entropy") -> Dataset:
    """Load the data set that `options` names, with targets as the loss takes them.

    Raises
    ------
    UserError
        If it cannot be had, the loss cannot take its targets, or a batch is larger than the training part.
    """
    data = DATASETS[options.name][1](options)
    data = fitted(data, as_loss(loss), named(options))
    data.check_batch(options.batch_size)
    return data


def named(options: Any) -> str:
    """What the user wrote to choose the data set."""
    return f"data._target_={options.target}" if options.name == "_target_" else f"data={options.name}"


def training_batches(data: Dataset, options: Any, seed: int) -> Batches:
    """Batches as the options of the data set say; the sets that are made up have neither augmentation nor noise."""
    noise, augment = getattr(options, "label_noise", 0.0), getattr(options, "augment", None)
    if noise and not data.has_labels:
        raise UserError("data.label_noise draws class indices anew, and these targets are none; use data.label_noise=0")
    return Batches(data, options.batch_size, seed, noise, augment)


__all__ = [
    "DATASETS", "Batches", "CustomOptions", "Dataset", "DigitsOptions", "ImageOptions", "SyntheticOptions",
    "TokensOptions", "in_memory", "load_data", "settle", "training_batches",
]  # fmt: skip
