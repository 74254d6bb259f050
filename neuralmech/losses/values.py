"""Losses of numbers: squared error, and cross-entropy of independent yes-or-no targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from neuralmech.errors import UserError
from neuralmech.losses.base import Kind, Loss, Tally, as_wide, class_dim, counts, fit_labels
from neuralmech.losses.cross_entropy import check_factors, factors


@dataclass
class SquaredError(Loss):
    """Mean of (output − target)² over all outputs; class indices are one-hot vectors."""

    name: str = "mse"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the targets that count."""
        if targets.is_floating_point() or targets.shape == outputs.shape:
            return F.mse_loss(*aligned(self.key, outputs, targets))
        squares, counted = _squares(outputs, targets)
        return (squares * counted).sum() / counted.sum()

    def tally(self, outputs: Tensor, targets: Tensor) -> Tally:
        """Sums; accuracy is that of class indices, by the largest output."""
        outputs = outputs.to(as_wide(outputs.dtype))
        if targets.is_floating_point() or targets.shape == outputs.shape:
            values, wanted = aligned(self.key, outputs, targets)
            return Tally(float(F.mse_loss(values, wanted, reduction="sum")), values.numel())
        squares, counted = _squares(outputs, targets)
        right = int((outputs.argmax(class_dim(outputs.dim())) == targets).sum())
        number = int(counted.sum())
        return Tally(float((squares * counted).sum()), number, right, number)

    def kind(self, targets: Tensor, *, of_tokens: bool) -> Kind:
        """One integer for each sample or token is a class index, everything else a number."""
        is_one = targets.dim() == 1 + of_tokens
        return "labels" if is_one and not targets.is_floating_point() else "values"

    def fit(self, outputs: torch.Size, targets: Tensor) -> None:
        """Raise a `UserError` unless outputs of a shape go with targets."""
        if targets.is_floating_point() or targets.shape == outputs:
            fit_values(self.key, outputs, targets.shape)
        else:
            fit_labels(self.key, outputs, targets)


def _squares(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean square over the classes of each prediction's distance from a one-hot vector, and whether it counts."""
    dim = class_dim(outputs.dim())
    classes = torch.arange(outputs.shape[dim], device=outputs.device).view(-1, *[1] * (outputs.dim() - dim - 1))
    hot = labels.unsqueeze(dim) == classes
    return (outputs - hot.to(outputs.dtype)).square().mean(dim), counts(labels)


@dataclass
class BinaryCrossEntropy(Loss):
    """−y log σ(z) − (1−y) log(1−σ(z)) over all outputs, as in torch's binary_cross_entropy_with_logits.

    Attributes
    ----------
    pos_weight
        Factor on y log σ(z), one for each output.
    """

    name: str = "bce"
    pos_weight: list[float] | None = None

    def check(self) -> None:
        """Raise a `UserError` for impossible options."""
        check_factors("loss.pos_weight", self.pos_weight)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over all outputs."""
        values, wanted = aligned(self.key, outputs, targets)
        return F.binary_cross_entropy_with_logits(values, wanted, pos_weight=self._weight(values))

    def tally(self, outputs: Tensor, targets: Tensor) -> Tally:
        """Sums; a target is judged by whether it is more than one half."""
        values, wanted = aligned(self.key, outputs.to(as_wide(outputs.dtype)), targets)
        weight = self._weight(values)
        total = float(F.binary_cross_entropy_with_logits(values, wanted, pos_weight=weight, reduction="sum"))
        return Tally(total, values.numel(), int(((values > 0) == (wanted > 0.5)).sum()), values.numel())

    def kind(self, targets: Tensor, *, of_tokens: bool) -> Kind:
        """Always numbers."""
        return "values"

    def wrong(self, targets: Tensor, kind: Kind) -> tuple[Tensor, str]:
        """Those that are no probabilities."""
        good = ((targets >= 0) & (targets <= 1)).reshape(len(targets), -1).all(1)
        return (
            ~good,
            "is no number from 0 to 1, as loss=bce takes them; take cross_entropy for class indices, mse for any",
        )

    def fit(self, outputs: torch.Size, targets: Tensor) -> None:
        """Raise a `UserError` unless outputs of a shape go with targets, and with the weights."""
        fit_values(self.key, outputs, targets.shape)
        count = outputs[class_dim(len(outputs))] if len(outputs) > 1 else 1
        if self.pos_weight and len(self.pos_weight) != count:
            raise UserError(
                f"loss.pos_weight has {len(self.pos_weight)} numbers for {count} outputs; give one for each"
            )

    def _weight(self, values: Tensor) -> Tensor | None:
        if not self.pos_weight:
            return None
        behind = values.dim() - class_dim(values.dim()) - 1 if values.dim() > 1 else 0
        return factors(self.pos_weight, values).reshape(-1, *[1] * behind)


def fit_values(key: str, outputs: torch.Size, targets: torch.Size) -> None:
    """Raise a `UserError` unless there is a target for each output; a last dimension of one may be missing."""
    if outputs != targets and tuple(outputs) != (*targets, 1) and tuple(targets) != (*outputs, 1):
        raise UserError(
            f"{key}: targets of shape {tuple(targets)} do not go with outputs of shape {tuple(outputs)}; "
            "give one number for each"
        )


def aligned(key: str, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs in the targets' shape, so that nothing is broadcast, and targets in the outputs' type."""
    if outputs.shape != targets.shape:
        fit_values(key, outputs.shape, targets.shape)
        outputs = outputs.reshape(targets.shape)
    return outputs, targets.to(outputs.dtype)
