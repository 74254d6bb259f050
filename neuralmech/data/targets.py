"""Targets as a loss takes them: what they are, whether each can be taken, and in which type they are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuralmech.data.dataset import Dataset
from neuralmech.data.parts import Items, Part, Samples
from neuralmech.errors import UserError
from neuralmech.losses import IGNORED, Called, Kind, Loss, classes_in, counts

SEEN = 16  # items, evenly spaced, that say what the targets are where they are read one by one


@dataclass(frozen=True)
class Targets:
    """Checks targets and gives them the type that they are kept in.

    Attributes
    ----------
    key
        What gives them, such as ``data._target_=my_package.my_data``.
    classes
        Number of labels, probabilities or numbers for each prediction.
    shape
        Of the targets of one sample.
    """

    key: str
    loss: Loss
    kind: Kind
    classes: int
    shape: torch.Size

    def __call__(self, y: Tensor, number: Callable[[int], str]) -> Tensor:
        """Class indices as int64, the others as real numbers; `number` names a sample by its place in `y`.

        Raises
        ------
        UserError
            If one of them cannot be taken; it is named.
        """
        if y.shape[1:] != self.shape:
            shapes = f"{tuple(y.shape[1:])}, and others {tuple(self.shape)}"
            raise UserError(f"{self.key} gives targets of shape {shapes}; give all of one shape ({number(0)})")
        if self.kind == "labels":
            return self._labels(y, number)
        if not y.is_floating_point() and not isinstance(self.loss, Called):
            y = y.to(torch.get_default_dtype())
        wrong, why = self.loss.wrong(y, self.kind)
        if len(bad := wrong.nonzero()):
            first = int(bad[0])
            shown = y[first].tolist() if y[first].numel() <= 10 else f"of shape {tuple(y[first].shape)}"
            raise UserError(f"{self.key} gives the target {shown}, which {why}; look at {number(first)}")
        return y

    def _labels(self, y: Tensor, number: Callable[[int], str]) -> Tensor:
        if y.is_floating_point():
            raise UserError(f"{self.key} gives real numbers among its class indices; look at {number(0)} and after")
        y = y.long()
        ignored = getattr(self.loss, "ignore_index", IGNORED)
        if ignored != IGNORED:
            y = y.masked_fill(y == ignored, IGNORED)
        if isinstance(self.loss, Called):
            return y
        wrong = counts(y) & ((y < 0) | (y >= self.classes))
        if len(bad := wrong.nonzero()):
            label = int(y[tuple(bad[0])])
            raise UserError(
                f"{self.key} gives the label {label}; labels go from 0 to {self.classes - 1} (data.classes): "
                f"look at {number(int(bad[0, 0]))}"
            )
        return y


def fitted(data: Dataset, loss: Loss, key: str) -> Dataset:
    """Check the targets of a data set, those in memory at once and the others as they are read.

    `data.classes` is 0 where nothing says how many there are.

    Raises
    ------
    UserError
        If the loss cannot take them, or nobody says how many classes there are.
    """
    x, y = _seen(data.train)
    of_tokens = data.has_tokens and y.dim() > 1 and y.shape[1] == x.shape[1]
    try:
        kind = loss.kind(y, of_tokens=of_tokens)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    targets = Targets(key, loss, kind, _classes(data, key, kind, y), y.shape[1:])
    train, test = _taken(data.train, targets, "training"), _taken(data.test, targets, "held-out")
    return replace(data, train=train, test=test, classes=targets.classes, has_labels=kind == "labels")


def _seen(part: Part) -> tuple[Tensor, Tensor]:
    """All samples in memory, or some of those that are read one by one."""
    if isinstance(part, Samples):
        return part.x, part.y
    return part[np.unique(np.linspace(0, len(part) - 1, min(len(part), SEEN)).astype(np.int64))]


def _classes(data: Dataset, key: str, kind: Kind, y: Tensor) -> int:
    """How many outputs a model needs: what the data say, or the targets."""
    if kind != "labels":
        classes = classes_in(y)
        if kind == "soft" and data.classes not in (0, classes):
            raise UserError(f"{key} gives {classes} numbers for {data.classes} classes (data.classes); make them agree")
        return classes
    if data.classes:
        return data.classes
    if isinstance(data.train, Items) or isinstance(data.test, Items):
        raise UserError(f"{key} does not say how many classes there are; set data.classes")
    tokens = [p.x for p in (data.train, data.test) if p.x.dtype in (torch.int64, torch.int32)]
    return 1 + max(int(values.max()) for values in (data.train.y, data.test.y, *tokens))


def _taken(part: Part, targets: Targets, name: str) -> Part:
    if isinstance(part, Items):
        return replace(part, targets=targets)
    return Samples(part.x, targets(part.y, lambda i: f"{name} sample {i}"))
