"""What every loss says of itself: its value, the targets that it takes, and what discovery may assume of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from neuralmech.errors import UserError

if TYPE_CHECKING:  # a loss is an option of a run, and options are checked before torch is imported
    import torch
    from jaxtyping import Bool, Float, Shaped
    from torch import Tensor

IGNORED = -100  # a target that does not count, as in torch.nn.functional.cross_entropy

Kind = Literal["labels", "soft", "values"]  # class indices; probabilities of the classes; numbers


class Tally(NamedTuple):
    """Sums over a batch: the mean loss is total / weight, the accuracy right / judged (0: there is none)."""

    total: float
    weight: float
    right: int = 0
    judged: int = 0


class Loss:
    """The mean of a loss over the targets that count.

    Attributes
    ----------
    ignores_shift
        Whether the loss ignores a shift of the outputs that is the same for all classes.
    """

    name: str
    ignores_shift: ClassVar[bool] = False

    def check(self) -> None:
        """Raise a `UserError` for impossible options."""

    @property
    def key(self) -> str:
        """What the command line calls it."""
        return f"loss={self.name}"

    def __call__(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """Value on a batch."""
        raise NotImplementedError

    def tally(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Tally:
        """Sums from which the mean over several batches is made."""
        raise NotImplementedError

    def weight_of(self, targets: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """What a batch weighs in a mean over several, here the number of its targets that count; stays on the device.

        In units of the loss's own: batches of one loss are compared with one another.
        """
        return counts(targets).sum()

    def kind(self, targets: Shaped[Tensor, "batch ..."], *, of_tokens: bool) -> Kind:
        """What these targets (samples, …) are; `of_tokens`: one for each token of a sample.

        Raises
        ------
        UserError
            If the loss takes none of that kind.
        """
        raise NotImplementedError

    def wrong(self, targets: Shaped[Tensor, "batch ..."], kind: Kind) -> tuple[Bool[Tensor, " batch"], str]:
        """Mask (samples,) of targets that the loss cannot take, besides class indices out of range; and why."""
        import torch

        if kind == "labels":
            return torch.zeros(len(targets), dtype=torch.bool, device=targets.device), ""
        return ~targets.isfinite().flatten(1).all(1) if targets.dim() > 1 else ~targets.isfinite(), "is not finite"

    def fit(self, outputs: torch.Size, targets: Shaped[Tensor, "batch ..."]) -> None:
        """Raise a `UserError` unless outputs of a shape go with targets."""
        raise NotImplementedError


def counts(targets: Shaped[Tensor, "batch ..."]) -> Bool[Tensor, "batch ..."]:
    """Which targets count in the mean that the loss is: Boolean, of their shape; numbers and soft labels all do."""
    import torch

    return torch.ones_like(targets, dtype=torch.bool) if targets.is_floating_point() else targets != IGNORED


def class_dim(dims: int) -> int:
    """Where the classes of (batch, classes), (batch, tokens, classes) or (batch, classes, height, width) are."""
    return 2 if dims == 3 else 1


def classes_in(targets: Shaped[Tensor, "batch ..."]) -> int:
    """Number of classes of soft labels, or of numbers that each sample has."""
    return targets.shape[class_dim(targets.dim())] if targets.dim() > 1 else 1


def fit_labels(key: str, outputs: torch.Size, targets: Shaped[Tensor, "batch ..."]) -> None:
    """Raise a `UserError` unless there is a row of classes for each label, with room for it."""
    dim = class_dim(len(outputs))
    if len(outputs) < 2:
        raise UserError(f"model: it returns one number per sample, and {key} needs (batch, classes); change its output")
    wanted = (*outputs[:dim], *outputs[dim + 1 :])
    if tuple(targets.shape) != wanted:
        column = tuple(targets.shape) == (*wanted, 1)
        raise UserError(
            f"{key}: class indices of shape {tuple(targets.shape)} do not go with outputs of shape {tuple(outputs)}; "
            f"give {'y.squeeze(-1)' if column else f'labels of shape {wanted}'}"
        )
    largest = int(targets.max()) if targets.numel() and not targets.is_meta else 0
    if largest >= outputs[dim]:
        raise UserError(
            f"model: it has {outputs[dim]} outputs, and labels go up to {largest}; give it {largest + 1} (data.classes)"
        )


def as_wide(dtype: torch.dtype) -> torch.dtype:
    """Float32 for types that hold no sum over a batch (bf16, fp16)."""
    import torch

    return torch.float32 if dtype.itemsize < 4 else dtype
