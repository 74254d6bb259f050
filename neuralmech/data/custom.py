"""A user's own data set, named by ``data._target_``."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralmech.data.dataset import Dataset, Pixels, measure
from neuralmech.data.draws import generators_kept, seed_generators
from neuralmech.data.options import CustomOptions
from neuralmech.data.parts import Items, Part, Samples
from neuralmech.errors import UserError
from neuralmech.targets import call

MEASURED = 1000  # images read, evenly spaced, for the mean and standard deviation of their grey levels
PARTS = ("training set", "held-out set")


def load_custom(options: CustomOptions) -> Dataset:
    """Call the target: it gives train_x, train_y, test_x, test_y, or a training and a held-out torch data set.

    Raises
    ------
    UserError
        If it gives something else, or items that are not the same every time. What the targets are is for
        `neuralmech.data.targets` to see; `classes` is 0 where nothing says how many there are.
    """
    key = f"data._target_={options.target}"
    with generators_kept():
        seed_generators((0,), [])  # the same data for every seed and at every resumption, whatever they are drawn from
        given = call("data", options.target, options.arguments)
    if not isinstance(given, Sequence) or len(given) not in (2, 4):
        raise UserError(f"{key} must give (train_x, train_y, test_x, test_y) or two torch data sets")
    if len(given) == 4:
        train, test = samples_of(key, given)
    else:
        train, test = (_items(key, *part) for part in zip(given, PARTS, strict=True))
    check_alike(key, train, test)
    return Dataset(train, test, options.classes or _named(given[0]), pixels_of(key, train))


def samples_of(key: str, given: Sequence[Any]) -> list[Samples]:
    """Training and held-out part of train_x, train_y, test_x, test_y, checked; `key` is what errors call them."""
    try:
        train_x, train_y, test_x, test_y = (torch.as_tensor(values) for values in given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{key} gives no tensors ({error}); give four, or two torch data sets") from error
    parts = [Samples(train_x, train_y), Samples(test_x, test_y)]
    for part, name in zip(parts, PARTS, strict=True):
        if not part.x.dim() or not part.y.dim():
            raise UserError(f"{key} gives one number as inputs or labels of the {name}; give a row for each sample")
        if len(part.x) != len(part.y):
            raise UserError(f"{key} gives {len(part.x)} inputs with {len(part.y)} labels ({name}); give one for each")
        if len(part) < 2:
            raise UserError(f"{key} gives {len(part)} samples in the {name}; give two or more")
        if part.x.is_complex() or part.y.is_complex():
            raise UserError(f"{key} gives complex numbers in the {name}; give real ones")
    return parts


def _items(key: str, given: Any, name: str) -> Items:
    if not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
        raise UserError(f"{key} gives a {type(given).__name__}, which cannot be read by index; give a torch data set")
    items = Items(given, name)
    if len(items) < 2:
        raise UserError(f"{key} gives {len(items)} items in the {name}; give two or more")
    try:
        twice = [items[np.array([0, len(items) - 1])] for _ in range(2)]
    except UserError as error:
        raise UserError(f"{key}: {str(error).removeprefix('data: ')}") from error
    if not all(_is_same(a, b) for a, b in zip(*twice, strict=True)):
        raise UserError(
            f"{key}: its items differ each time they are read, although the generators of PyTorch, NumPy and Python "
            "are seeded alike before each; draw what is random from one of these"
        )
    return items


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether numbers are equal, and NaN where the others are."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _named(given: Any) -> int:
    """Number of classes that a torch data set names, as torchvision's do; 0 if it names none."""
    names = getattr(given, "classes", ())
    return len(names) if isinstance(names, Sized) else 0


def check_alike(key: str, train: Part, test: Part) -> None:
    """Raise a `UserError` unless both parts have inputs of one kind, with as many dimensions."""
    first, other = (part[np.arange(1)][0] for part in (train, test))
    kinds = [(t.dim(), t.dtype == torch.uint8, t.is_floating_point()) for t in (first, other)]
    if kinds[0] != kinds[1]:
        shown = [f"{str(t.dtype).removeprefix('torch.')} of shape {tuple(t.shape[1:])}" for t in (first, other)]
        raise UserError(f"{key} gives training inputs of {shown[0]} and held-out ones of {shown[1]}; make them alike")


def pixels_of(key: str, part: Part) -> Pixels | None:
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
