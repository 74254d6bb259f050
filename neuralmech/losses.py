"""The loss that training, evaluation and verification share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # a target that does not count, as in torch.nn.functional.cross_entropy


def loss_of(output: Tensor, targets: Tensor, loss: str = "cross_entropy") -> Tensor:
    """Mean loss over the targets that count.

    Softmax cross-entropy is −log softmax(z)_y; it ignores a shift of z that is the same for all classes, whichever
    targets count.

    Parameters
    ----------
    output
        Logits (batch, classes), (batch, tokens, classes) or (batch, classes, height, width); for ``mse``,
        predictions.
    targets
        Class indices, of the logits' shape without the classes; those equal to `IGNORED` do not count. For
        ``mse``, values of the predictions' shape.
    loss
        ``cross_entropy`` or ``mse``.

    Examples
    --------
    >>> import torch
    >>> logits = torch.zeros(1, 2, 4)
    >>> float(loss_of(logits, torch.tensor([[3, IGNORED]])).exp().round())
    4.0
    """
    if loss == "mse":
        return F.mse_loss(output, targets)
    return F.cross_entropy(*_by_prediction(output, targets), ignore_index=IGNORED)


def counts(targets: Tensor) -> Tensor:
    """Which targets count in the mean that the loss is: Boolean, of their shape."""
    return targets != IGNORED


def weight(targets: Tensor) -> Tensor:
    """What a batch weighs in a mean over several: the number of its targets that count; stays on the device."""
    return counts(targets).sum()


def tally(logits: Tensor, targets: Tensor) -> tuple[float, int, int]:
    """Sum of the cross-entropy, number of right predictions, and number of targets that count."""
    flat, wanted = _by_prediction(logits, targets)
    flat = flat.float() if flat.dtype.itemsize < 4 else flat  # bf16 and fp16 hold no sum over a batch
    total = float(F.cross_entropy(flat, wanted, ignore_index=IGNORED, reduction="sum"))
    return total, int((flat.argmax(dim=1) == wanted).sum()), int(weight(wanted))


def _by_prediction(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits with the classes along dimension 1, where `cross_entropy` wants them."""
    return (logits.flatten(0, 1), targets.flatten()) if logits.dim() == 3 else (logits, targets)
