"""Options of every data set, which are checked before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuralmech.checks import check_at_least, check_choice, check_fraction, check_share
from neuralmech.errors import UserError
from neuralmech.targets import locate
from neuralmech.words import Differing

TEST_FRACTION = 0.2  # of the samples that is held out
TASKS = ("modular", "markov")


@dataclass(repr=False)
class DataOptions(Differing):
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


@dataclass(repr=False)
class LabelOptions(DataOptions):
    """`label_noise`: share of a batch's labels that are drawn anew at every step."""

    label_noise: float = 0.0

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_share("data.label_noise", self.label_noise)


@dataclass(repr=False)
class AugmentOptions(Differing):
    """Of training images: random `crop` after so many pixels of zero padding; `flip` left to right, every other one."""

    crop: int = 0
    flip: bool = False

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        check_at_least("data.augment.crop", self.crop, 0)


@dataclass(repr=False)
class BatchOptions(LabelOptions):
    """Of samples that may be images."""

    augment: AugmentOptions = field(default_factory=AugmentOptions)

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        self.augment.check()


@dataclass(repr=False)
class DigitsOptions(LabelOptions):
    """`test_fraction` of the images is held out."""

    name: str = "digits"
    test_fraction: float = TEST_FRACTION

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_fraction("data.test_fraction", self.test_fraction)


@dataclass(repr=False)
class SyntheticOptions(LabelOptions):
    """`size` samples of `shape`, Gaussian; labels are the argmax of a random two-layer teacher's logits."""

    name: str = "synthetic"
    shape: list[int] = field(default_factory=lambda: [1, 8, 8])
    classes: int = 10
    size: int = 2000
    test_fraction: float = TEST_FRACTION
    seed: int = 0

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_at_least("data.classes", self.classes, 2)
        check_at_least("data.size", self.size, 2)
        check_fraction("data.test_fraction", self.test_fraction)
        if not self.shape or min(self.shape) < 1:
            raise UserError(f"data.shape={self.shape} is no shape; give positive sizes such as [1,8,8]")


@dataclass(repr=False)
class TokensOptions(DataOptions):
    """`task` modular: every "a + b =" modulo `modulus`; markov: `size` sequences of `length` tokens out of `states`."""

    name: str = "tokens"
    task: str = "modular"
    modulus: int = 59
    states: int = 16
    length: int = 32
    size: int = 2000
    concentration: float = 0.3
    test_fraction: float = TEST_FRACTION
    seed: int = 0

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_choice("data.task", self.task, TASKS)
        check_at_least("data.modulus", self.modulus, 2)
        check_at_least("data.states", self.states, 2)
        check_at_least("data.length", self.length, 1)
        check_at_least("data.size", self.size, 2)
        check_fraction("data.test_fraction", self.test_fraction)
        check_at_least("data.seed", self.seed, 0)
        if not 0 < self.concentration < float("inf"):
            raise UserError(f"data.concentration={self.concentration} must be a positive number, such as 0.3")


@dataclass(repr=False)
class ImageOptions(BatchOptions):
    """`folder` of the downloaded files (null: ``$NEURALMECH_DATA``, else the user's cache)."""

    name: str = "mnist"
    folder: str | None = None

    @property
    def files(self) -> Path:
        """Folder of this set's files."""
        from neuralmech.data.download import data_folder  # takes tqdm along

        return data_folder(self.folder, self.name)


@dataclass(repr=False)
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
