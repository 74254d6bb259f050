"""Losses by name: cross-entropy, squared error, and cross-entropy of independent yes-or-no targets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from neuralmech.checks import check_share
from neuralmech.errors import UserError
from neuralmech.losses.base import IGNORED, Kind, Loss, Tally, as_wide, class_dim, counts, fit_labels
from neuralmech.words import Differing

if TYPE_CHECKING:  # see base.py
    import torch
    from jaxtyping import Bool, Float, Shaped
    from torch import Tensor

SUM = 1e-3  # by which probabilities may miss a sum of one: those of half precision do


@dataclass(repr=False)
class CrossEntropy(Differing, Loss):
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

    def __call__(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """Mean over the targets that count."""
        from torch.nn import functional as F

        flat, wanted = self._by_prediction(outputs, targets)
        return F.cross_entropy(flat, wanted, **self._options(flat))

    def tally(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Tally:
        """Sums; a soft label is judged by its most probable class."""
        from torch.nn import functional as F

        flat, wanted = self._by_prediction(outputs.to(as_wide(outputs.dtype)), targets)
        total = float(F.cross_entropy(flat, wanted, reduction="sum", **self._options(flat)))
        if wanted.is_floating_point():
            best = wanted.argmax(dim=1)
            return Tally(total, best.numel(), int((flat.argmax(dim=1) == best).sum()), best.numel())
        right = int((flat.argmax(dim=1) == wanted).sum())
        return Tally(total, float(self.weight_of(wanted)), right, int(counts(wanted).sum()))

    def weight_of(self, targets: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """Σ w_y over class indices that count; the number of soft labels, which weigh alike."""
        import torch

        if targets.is_floating_point():
            return counts(targets.select(class_dim(targets.dim()), 0)).sum()
        counted = counts(targets) & (targets != self.ignore_index)
        if not self.weight:
            return counted.sum()
        of_class = torch.tensor(self.weight, dtype=torch.float64, device=targets.device)
        return (of_class[targets.clamp(min=0)] * counted).sum()

    def kind(self, targets: Shaped[Tensor, "batch ..."], *, of_tokens: bool) -> Kind:
        """Integers are class indices, unless they are one-hot; real numbers are probabilities."""
        if not targets.is_floating_point():
            return "soft" if is_one_hot(targets, of_tokens=of_tokens) else "labels"
        if targets.dim() < 2 + of_tokens or targets.shape[class_dim(targets.dim())] < 2:
            raise UserError(
                "targets are real numbers, and loss=cross_entropy takes class indices or probabilities of the classes; "
                "give integers (y.long()), or fit numbers with loss=mse or bce"
            )
        return "soft"

    def wrong(self, targets: Shaped[Tensor, "batch ..."], kind: Kind) -> tuple[Bool[Tensor, " batch"], str]:
        """Mask of the targets that are no probabilities, and why."""
        if kind != "soft":
            return super().wrong(targets, kind)
        sums = targets.double().sum(class_dim(targets.dim()), keepdim=True)
        good = ((targets >= 0) & ((sums - 1).abs() <= SUM)).flatten(1).all(1)  # NaN is not
        return ~good, "is no row of probabilities (not negative, with the sum 1)"

    def fit(self, outputs: torch.Size, targets: Shaped[Tensor, "batch ..."]) -> None:
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

    def _options(self, outputs: Float[Tensor, "batch ..."]) -> dict[str, Any]:
        weight = factors(self.weight, outputs) if self.weight else None
        return {"weight": weight, "ignore_index": IGNORED, "label_smoothing": self.label_smoothing}

    def _by_prediction(
        self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]
    ) -> tuple[Tensor, Tensor]:
        """Outputs and targets with the classes along dimension 1, where torch wants them."""
        if targets.is_floating_point():
            targets = targets.to(outputs.dtype)
            return (outputs.flatten(0, 1), targets.flatten(0, 1)) if outputs.dim() == 3 else (outputs, targets)
        if self.ignore_index != IGNORED:
            targets = targets.masked_fill(targets == self.ignore_index, IGNORED)
        return (outputs.flatten(0, 1), targets.flatten()) if outputs.dim() == 3 else (outputs, targets)


def is_one_hot(targets: Shaped[Tensor, "batch ..."], *, of_tokens: bool) -> bool:
    """Whether integers are rows of one 1 and zeros."""
    if targets.dim() < 2 + of_tokens or targets.shape[class_dim(targets.dim())] < 2:
        return False
    bits = bool(((targets == 0) | (targets == 1)).all())
    return bits and bool((targets.sum(class_dim(targets.dim())) == 1).all())


def check_factors(key: str, values: list[float] | None) -> None:
    """Raise a `UserError` unless all are positive numbers."""
    if values is not None and (not values or not all(0 < v < float("inf") for v in values)):
        raise UserError(f"{key}={list(values)} must be positive numbers, one for each class")


def factors(values: list[float], like: Float[Tensor, "batch ..."]) -> Float[Tensor, " classes"]:
    """A list of numbers on a tensor's device, in its type."""
    return _factors(tuple(values), like.device, like.dtype)


@cache
def _factors(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    import torch

    return torch.tensor(values, device=device, dtype=dtype)


@dataclass(repr=False)
class SquaredError(Differing, Loss):
    """Mean of (output − target)² over all outputs; class indices are one-hot vectors."""

    name: str = "mse"

    def __call__(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """Mean over the targets that count."""
        from torch.nn import functional as F

        if targets.is_floating_point() or targets.shape == outputs.shape:
            return F.mse_loss(*aligned(self.key, outputs, targets))
        squares, counted = _squares(outputs, targets)
        return (squares * counted).sum() / counted.sum()

    def tally(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Tally:
        """Sums; accuracy is that of class indices, by the largest output."""
        from torch.nn import functional as F

        outputs = outputs.to(as_wide(outputs.dtype))
        if targets.is_floating_point() or targets.shape == outputs.shape:
            values, wanted = aligned(self.key, outputs, targets)
            return Tally(float(F.mse_loss(values, wanted, reduction="sum")), values.numel())
        squares, counted = _squares(outputs, targets)
        right = int((outputs.argmax(class_dim(outputs.dim())) == targets).sum())
        number = int(counted.sum())
        return Tally(float((squares * counted).sum()), number, right, number)

    def kind(self, targets: Shaped[Tensor, "batch ..."], *, of_tokens: bool) -> Kind:
        """One integer for each sample or token is a class index, everything else a number."""
        is_one = targets.dim() == 1 + of_tokens
        return "labels" if is_one and not targets.is_floating_point() else "values"

    def fit(self, outputs: torch.Size, targets: Shaped[Tensor, "batch ..."]) -> None:
        """Raise a `UserError` unless outputs of a shape go with targets."""
        if targets.is_floating_point() or targets.shape == outputs:
            fit_values(self.key, outputs, targets.shape)
        else:
            fit_labels(self.key, outputs, targets)


def _squares(outputs: Float[Tensor, "batch ..."], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean square over the classes of each prediction's distance from a one-hot vector, and whether it counts."""
    import torch

    dim = class_dim(outputs.dim())
    classes = torch.arange(outputs.shape[dim], device=outputs.device).view(-1, *[1] * (outputs.dim() - dim - 1))
    hot = labels.unsqueeze(dim) == classes
    return (outputs - hot.to(outputs.dtype)).square().mean(dim), counts(labels)


@dataclass(repr=False)
class BinaryCrossEntropy(Differing, Loss):
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

    def __call__(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """Mean over all outputs."""
        from torch.nn import functional as F

        values, wanted = aligned(self.key, outputs, targets)
        return F.binary_cross_entropy_with_logits(values, wanted, pos_weight=self._weight(values))

    def tally(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Tally:
        """Sums; a target is judged by whether it is more than one half."""
        from torch.nn import functional as F

        values, wanted = aligned(self.key, outputs.to(as_wide(outputs.dtype)), targets)
        weight = self._weight(values)
        total = float(F.binary_cross_entropy_with_logits(values, wanted, pos_weight=weight, reduction="sum"))
        return Tally(total, values.numel(), int(((values > 0) == (wanted > 0.5)).sum()), values.numel())

    def kind(self, targets: Shaped[Tensor, "batch ..."], *, of_tokens: bool) -> Kind:
        """Always numbers."""
        return "values"

    def wrong(self, targets: Shaped[Tensor, "batch ..."], kind: Kind) -> tuple[Bool[Tensor, " batch"], str]:
        """Mask of the targets that are no probabilities, and why."""
        good = ((targets >= 0) & (targets <= 1)).reshape(len(targets), -1).all(1)
        return (
            ~good,
            "is no number from 0 to 1, as loss=bce takes them; take cross_entropy for class indices, mse for any",
        )

    def fit(self, outputs: torch.Size, targets: Shaped[Tensor, "batch ..."]) -> None:
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


def aligned(
    key: str, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Outputs in the targets' shape, so that nothing is broadcast, and targets in the outputs' type."""
    if outputs.shape != targets.shape:
        fit_values(key, outputs.shape, targets.shape)
        outputs = outputs.reshape(targets.shape)
    return outputs, targets.to(outputs.dtype)
