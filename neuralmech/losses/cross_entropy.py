"""Softmax cross-entropy, of class indices and of probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from neuralmech.checks import check_share
from neuralmech.errors import UserError
from neuralmech.losses.base import IGNORED, Kind, Loss, Tally, as_wide, class_dim, counts, fit_labels

SUM = 1e-3  # by which probabilities may miss a sum of one: those of half precision do


@dataclass
class CrossEntropy(Loss):
    """−log softmax(z)_y, as in torch.nn.functional.cross_entropy.

    Attributes
    ----------
    label_smoothing
        Share ε of each target that is spread over all classes: (1−ε)·target + ε/classes.
    weight
        Factor of each class; the mean is Σ w_y·loss / Σ w_y over class indices, Σ loss / samples over soft labels.
    ignore_index
        Class index that does not count, besides −100.
    """

    name: str = "cross_entropy"
    label_smoothing: float = 0.0
    weight: list[float] | None = None
    ignore_index: int = IGNORED

    ignores_shift: ClassVar[bool] = True  # log softmax does, whatever is summed of it

    def check(self) -> None:
        """Raise a `UserError` for impossible options."""
        check_share("loss.label_smoothing", self.label_smoothing)
        check_factors("loss.weight", self.weight)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the targets that count."""
        flat, wanted = self._by_prediction(outputs, targets)
        return F.cross_entropy(flat, wanted, **self._options(flat))

    def tally(self, outputs: Tensor, targets: Tensor) -> Tally:
        """Sums; a soft label is judged by its most probable class."""
        flat, wanted = self._by_prediction(outputs.to(as_wide(outputs.dtype)), targets)
        total = float(F.cross_entropy(flat, wanted, reduction="sum", **self._options(flat)))
        if wanted.is_floating_point():
            best = wanted.argmax(dim=1)
            return Tally(total, best.numel(), int((flat.argmax(dim=1) == best).sum()), best.numel())
        right = int((flat.argmax(dim=1) == wanted).sum())
        return Tally(total, float(self.weight_of(wanted)), right, int(counts(wanted).sum()))

    def weight_of(self, targets: Tensor) -> Tensor:
        """Σ w_y over class indices that count; the number of soft labels, which weigh alike."""
        if targets.is_floating_point():
            return counts(targets.select(class_dim(targets.dim()), 0)).sum()
        counted = counts(targets) & (targets != self.ignore_index)
        if not self.weight:
            return counted.sum()
        of_class = torch.tensor(self.weight, dtype=torch.float64, device=targets.device)
        return (of_class[targets.clamp(min=0)] * counted).sum()

    def kind(self, targets: Tensor, *, of_tokens: bool) -> Kind:
        """Integers are class indices, unless they are one-hot; real numbers are probabilities."""
        if not targets.is_floating_point():
            return "soft" if is_one_hot(targets, of_tokens=of_tokens) else "labels"
        if targets.dim() < 2 + of_tokens or targets.shape[class_dim(targets.dim())] < 2:
            raise UserError(
                "targets are real numbers, and loss=cross_entropy takes class indices or probabilities of the classes; "
                "give integers (y.long()), or fit numbers with loss=mse or bce"
            )
        return "soft"

    def wrong(self, targets: Tensor, kind: Kind) -> tuple[Tensor, str]:
        """Those that are no probabilities."""
        if kind != "soft":
            return super().wrong(targets, kind)
        sums = targets.double().sum(class_dim(targets.dim()), keepdim=True)
        good = ((targets >= 0) & ((sums - 1).abs() <= SUM)).flatten(1).all(1)  # NaN is not
        return ~good, "is no row of probabilities (not negative, with the sum 1)"

    def fit(self, outputs: torch.Size, targets: Tensor) -> None:
        """Raise a `UserError` unless outputs of a shape go with targets, and with the class weights."""
        if not targets.is_floating_point():
            kept = targets if targets.is_meta else targets.masked_fill(targets == self.ignore_index, IGNORED)
            fit_labels(self.key, outputs, kept)
        elif targets.shape != outputs:
            raise UserError(
                f"{self.key}: probabilities of shape {tuple(targets.shape)} do not go with outputs of shape "
                f"{tuple(outputs)}; give one number for each"
            )
        if self.weight and len(self.weight) != (classes := outputs[class_dim(len(outputs))]):
            raise UserError(f"loss.weight has {len(self.weight)} numbers for {classes} classes; give one for each")

    def _options(self, outputs: Tensor) -> dict[str, Any]:
        weight = factors(self.weight, outputs) if self.weight else None
        return {"weight": weight, "ignore_index": IGNORED, "label_smoothing": self.label_smoothing}

    def _by_prediction(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and targets with the classes along dimension 1, where torch wants them."""
        if targets.is_floating_point():
            targets = targets.to(outputs.dtype)
            return (outputs.flatten(0, 1), targets.flatten(0, 1)) if outputs.dim() == 3 else (outputs, targets)
        if self.ignore_index != IGNORED:
            targets = targets.masked_fill(targets == self.ignore_index, IGNORED)
        return (outputs.flatten(0, 1), targets.flatten()) if outputs.dim() == 3 else (outputs, targets)


def is_one_hot(targets: Tensor, *, of_tokens: bool) -> bool:
    """Whether integers are rows of one 1 and zeros."""
    if targets.dim() < 2 + of_tokens or targets.shape[class_dim(targets.dim())] < 2:
        return False
    bits = bool(((targets == 0) | (targets == 1)).all())
    return bits and bool((targets.sum(class_dim(targets.dim())) == 1).all())


def check_factors(key: str, values: list[float] | None) -> None:
    """Raise a `UserError` unless all are positive numbers."""
    if values is not None and (not values or not all(0 < v < float("inf") for v in values)):
        raise UserError(f"{key}={list(values)} must be positive numbers, one for each class")


def factors(values: list[float], like: Tensor) -> Tensor:
    """A list of numbers on a tensor's device, in its type."""
    return _factors(tuple(values), like.device, like.dtype)


@cache
def _factors(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, device=device, dtype=dtype)
