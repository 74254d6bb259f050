"""Options that data sets share."""

from __future__ import annotations

from dataclasses import dataclass, field

from neuralmech.checks import check_at_least, check_choice, check_share


@dataclass
class DataOptions:
    """Options of every data set: the size of a batch in samples, and where these are, which changes no bit of a batch.

    `residency` device keeps all of them where the model is, loader reads them ahead in `workers` processes
    (0: in this one), auto takes device where they fit.
    """

    residency: str = "auto"
    workers: int = 2
    batch_size: int = 64

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        check_choice("data.residency", self.residency, ("auto", "device", "loader"))
        check_at_least("data.workers", self.workers, 0)
        check_at_least("data.batch_size", self.batch_size, 2)


@dataclass
class LabelOptions(DataOptions):
    """`label_noise`: share of a batch's labels that are drawn anew at every step."""

    label_noise: float = 0.0

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_share("data.label_noise", self.label_noise)


@dataclass
class AugmentOptions:
    """Of training images: random `crop` after so many pixels of zero padding; `flip` left to right, every other one."""

    crop: int = 0
    flip: bool = False

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        check_at_least("data.augment.crop", self.crop, 0)


@dataclass
class BatchOptions(LabelOptions):
    """Of samples that may be images."""

    augment: AugmentOptions = field(default_factory=AugmentOptions)

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        self.augment.check()
