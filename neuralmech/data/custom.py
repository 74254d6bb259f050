"""A user's own data set, named by ``data._target_``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralmech.checks import check_at_least
from neuralmech.data.dataset import Dataset
from neuralmech.data.draws import generators_kept, seed_generators
from neuralmech.data.inputs import Pixels, measure
from neuralmech.data.options import BatchOptions
from neuralmech.data.parts import Items, Part, Samples
from neuralmech.errors import UserError
from neuralmech.losses import counts
from neuralmech.targets import call, locate

MEASURED = 1000  # images read, evenly spaced, for the mean and standard deviation of their grey levels
PARTS = ("training set", "held-out set")


@dataclass
class CustomOptions(BatchOptions):
    """``_target_``: dotted path of a function; what is none of these options is its arguments.

    `classes` (null: what the data say) is the number of labels, or the size of the vocabulary.
    """

    name: str = "_target_"
    target: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    classes: int | None = None

    def check(self) -> None:
        """Raise a `UserError` for impossible values, or if there is nothing of that name."""
        super().check()
        if self.classes is not None:
            check_at_least("data.classes", self.classes, 2)
        locate("data", self.target)


def load_custom(options: CustomOptions) -> Dataset:
    """Call the target: it gives train_x, train_y, test_x, test_y, or a training and a held-out torch data set.

    Raises
    ------
    UserError
        If it gives something else, or items that are not the same every time.
    """
    key = f"data._target_={options.target}"
    with generators_kept():
        seed_generators((0,), [])  # the same data for every seed and at every resumption, whatever they are drawn from
        given = call("data", options.target, options.arguments)
    if not isinstance(given, Sequence) or len(given) not in (2, 4):
        raise UserError(f"{key} must give (train_x, train_y, test_x, test_y) or two torch data sets")
    train, test = (
        _samples(key, given) if len(given) == 4 else (_items(key, *it) for it in zip(given, PARTS, strict=True))
    )
    classes = options.classes or _classes(given[0], train, test)
    if classes is None:
        raise UserError(f"{key} does not say how many classes there are; set data.classes")
    for part in (train, test):
        _check_labels(key, part, classes)
    return Dataset(train, test, classes, _pixels(key, train))


def _samples(key: str, given: Sequence[Any]) -> list[Samples]:
    try:
        train_x, train_y, test_x, test_y = (torch.as_tensor(values) for values in given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{key} gives no tensors ({error}); give four, or two torch data sets") from error
    parts = [Samples(train_x, train_y.long()), Samples(test_x, test_y.long())]
    for part in parts:
        if len(part.x) != len(part.y) or len(part) < 2:
            raise UserError(f"{key} gives {len(part.x)} inputs with {len(part.y)} labels; give two or more of each")
    return parts


def _items(key: str, given: Any, name: str) -> Items:
    items = Items(given, name)
    try:
        twice = [items[np.array([0, len(items) - 1])] for _ in range(2)]
    except UserError as error:
        raise UserError(f"{key}: {str(error).removeprefix('data: ')}") from error
    except (AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"{key}: its items are no pairs of a tensor and a label ({error})") from error
    if not all(torch.equal(a, b) for a, b in zip(*twice, strict=True)):
        raise UserError(
            f"{key}: its items differ each time they are read, although the generators of PyTorch, NumPy and Python "
            "are seeded alike before each; draw what is random from one of these"
        )
    return items


def _classes(given: Any, train: Part, test: Part) -> int | None:
    """Number of classes that the data say: those of torchvision's sets, or the largest label."""
    if isinstance(train, Items) or isinstance(test, Items):
        return len(given.classes) if hasattr(given, "classes") else None
    tokens = [p.x for p in (train, test) if p.x.dtype in (torch.int64, torch.int32)]
    return 1 + max(int(values.max()) for values in (train.y, test.y, *tokens))


def _check_labels(key: str, part: Part, classes: int) -> None:
    y = part.y if isinstance(part, Samples) else part[np.arange(1)][1]
    wrong = y[counts(y) & ((y < 0) | (y >= classes))]
    if len(wrong):
        raise UserError(f"{key} gives the label {int(wrong[0])}; labels go from 0 to {classes - 1} (data.classes)")


def _pixels(key: str, part: Part) -> Pixels | None:
    """Mean and standard deviation of images of bytes: of all that are in memory, of some that must be read."""
    first: Tensor = part[np.arange(1)][0]
    if first.dtype != torch.uint8:
        return None
    if first.dim() != 4:
        raise UserError(f"{key} gives bytes of shape {tuple(first.shape[1:])}; images are (channels, height, width)")
    if isinstance(part, Samples):
        return measure(part.x)
    count = min(len(part), MEASURED)
    return measure(part[np.linspace(0, len(part) - 1, count).astype(np.int64)][0])
