"""The losses that training, evaluation, discovery and verification share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from neuralmech.checks import check_choice
from neuralmech.errors import UserError
from neuralmech.losses.base import IGNORED, Kind, Loss, Tally, classes_in, counts
from neuralmech.losses.builtin import BinaryCrossEntropy, CrossEntropy, SquaredError
from neuralmech.losses.own import Called, CustomLoss

if TYPE_CHECKING:  # see base.py
    from jaxtyping import Float, Shaped
    from torch import Tensor

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "mse": SquaredError,
    "bce": BinaryCrossEntropy,
    "_target_": CustomLoss,
}
NAMES = ("cross_entropy", "mse", "bce")

LossLike = str | Loss | Callable[["Tensor", "Tensor"], "Tensor"]


def as_loss(loss: LossLike) -> Loss:
    """A loss by its name, as it is, or of the user's own, a callable of (outputs, targets).

    Raises
    ------
    UserError
        If there is none of that name.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        check_choice("loss", loss, NAMES)
        return LOSSES[loss]()
    if not callable(loss):
        raise UserError(f"loss={loss!r} is no loss; give {', '.join(NAMES)}, or a function of (outputs, targets)")
    return Called(loss)


def loss_of(
    outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."], loss: LossLike = "cross_entropy"
) -> Float[Tensor, ""]:
    """Mean loss over the targets that count.

    Parameters
    ----------
    outputs
        Logits (batch, classes), (batch, tokens, classes) or (batch, classes, height, width); for ``mse``,
        predictions.
    targets
        Class indices, of the logits' shape without the classes; those equal to `IGNORED` do not count. Or
        probabilities, and for ``mse`` and ``bce`` values, of the outputs' shape.
    loss
        As `as_loss` takes it.

    Examples
    --------
    >>> import torch
    >>> logits = torch.zeros(1, 2, 4)
    >>> float(loss_of(logits, torch.tensor([[3, IGNORED]])).exp().round())
    4.0
    """
    return as_loss(loss)(outputs, targets)


__all__ = [
    "IGNORED", "LOSSES", "NAMES", "BinaryCrossEntropy", "Called", "CrossEntropy", "CustomLoss", "Kind", "Loss",
    "LossLike", "SquaredError", "Tally", "as_loss", "classes_in", "counts", "loss_of",
]  # fmt: skip
