"""Data sets by name, on the device or streamed to it, and batches that depend on (seed, step) alone.

Options come without torch; the rest is imported when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuralmech.data.options import CustomOptions, DigitsOptions, ImageOptions, SyntheticOptions, TokensOptions
from neuralmech.data.options_own import HubOptions, ImageFolderOptions, TextOptions
from neuralmech.errors import UserError
from neuralmech.losses import LossLike, as_loss

if TYPE_CHECKING:
    from neuralmech.data.batches import Batches
    from neuralmech.data.dataset import Dataset, in_memory, settle

# name → (options; where its loader is)
DATASETS: dict[str, tuple[type, str]] = {
    "digits": (DigitsOptions, "builtin.load_digits"),
    "synthetic": (SyntheticOptions, "builtin.make_synthetic"),
    "tokens": (TokensOptions, "builtin.make_tokens"),
    "mnist": (ImageOptions, "images.load_mnist"),
    "cifar10": (ImageOptions, "images.load_cifar"),
    "cifar100": (ImageOptions, "images.load_cifar"),
    "tinyimagenet": (ImageOptions, "images.load_tiny_imagenet"),
    "imagefolder": (ImageFolderOptions, "pictures.load_image_folder"),
    "text": (TextOptions, "text.load_text"),
    "hf": (HubOptions, "hub.load_hub"),
    "_target_": (CustomOptions, "custom.load_custom"),
}

_LAZY = {"Batches": "batches", "Dataset": "dataset", "in_memory": "dataset", "settle": "dataset"}


def load_data(options: Any, loss: LossLike = "cross_entropy") -> Dataset:
    """Load the data set that `options` names, with targets as the loss takes them.

    Raises
    ------
    UserError
        If it cannot be had, the loss cannot take its targets, or a batch is larger than the training part.
    """
    from neuralmech.data.targets import fitted

    module, _, loader = DATASETS[options.name][1].partition(".")
    data = getattr(import_module(f"neuralmech.data.{module}"), loader)(options)
    data = fitted(data, as_loss(loss), named(options))
    data.check_batch(options.batch_size)
    return data


def named(options: Any) -> str:
    """What the user wrote to choose the data set."""
    return f"data._target_={options.target}" if options.name == "_target_" else f"data={options.name}"


def training_batches(data: Dataset, options: Any, seed: int, share: slice = slice(None)) -> Batches:
    """Batches as the options of the data set say; the sets that are made up have neither augmentation nor noise.

    Of each, the samples in `share`.
    """
    from neuralmech.data.batches import Batches

    noise, augment = getattr(options, "label_noise", 0.0), getattr(options, "augment", None)
    if noise and not data.has_labels:
        raise UserError("data.label_noise draws class indices anew, and these targets are none; use data.label_noise=0")
    return Batches(data, options.batch_size, seed, noise, augment, share)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"neuralmech.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'neuralmech.data' has no attribute {name!r}")


__all__ = [
    "DATASETS", "Batches", "CustomOptions", "Dataset", "DigitsOptions", "HubOptions", "ImageFolderOptions",
    "ImageOptions", "SyntheticOptions", "TextOptions", "TokensOptions", "in_memory", "load_data", "settle",
    "training_batches",
]  # fmt: skip
