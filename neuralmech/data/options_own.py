"""Options of data sets that are files of the user's own: images in folders, a text, a data set of Hugging Face's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neuralmech.checks import check_at_least, check_fraction
from neuralmech.data.options import TEST_FRACTION, BatchOptions, DataOptions
from neuralmech.errors import UserError
from neuralmech.words import given_in


def place(path: str) -> Path:
    """Where a path is, which is relative to the folder that the command was given in."""
    return given_in() / Path(path).expanduser()


def check_path(path: str | None, what: str) -> None:
    """Raise a `UserError` if there is none; a record does not say where files were, so it may have got lost."""
    if not path:
        raise UserError(f"data.path is missing; set data.path={what}")


@dataclass
class ImageFolderOptions(BatchOptions):
    """`path`: a folder with one of images for each class, or with such folders in ``train`` and ``val``.

    Images get the `size` of a square: the shorter side is scaled to it, and of the longer one its middle is kept.
    `test_fraction` is held out if there is no ``val``.
    """

    name: str = "imagefolder"
    path: str | None = None
    size: int = 64
    test_fraction: float = TEST_FRACTION

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_path(self.path, "FOLDER, which has a folder of images for each class")
        check_at_least("data.size", self.size, 1)
        check_fraction("data.test_fraction", self.test_fraction)


@dataclass
class TextOptions(DataOptions):
    """Windows of `length` characters of the file `path` (null: the text that is shipped), `stride` apart.

    The end of the file, `test_fraction` of it, is held out.
    """

    name: str = "text"
    path: str | None = None
    length: int = 64
    stride: int | None = None
    test_fraction: float = TEST_FRACTION

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        if self.path is not None:
            check_path(self.path, "FILE")
        check_at_least("data.length", self.length, 1)
        if self.stride is not None:
            check_at_least("data.stride", self.stride, 1)
        check_fraction("data.test_fraction", self.test_fraction)


@dataclass
class HubOptions(BatchOptions):
    """`path`: a folder that ``save_to_disk`` of the library `datasets` wrote; `inputs` and `targets` are its columns.

    Without `targets` the inputs are tokens, and the targets the next ones. `heldout` null holds out `test_fraction` of
    `split`. Images get the `size` of a square (null: they have one); `classes` (null: what the data say) is the number
    of labels, or the size of the vocabulary.
    """

    name: str = "hf"
    path: str | None = None
    inputs: str = "image"
    targets: str | None = "label"
    split: str = "train"
    heldout: str | None = "test"
    test_fraction: float = TEST_FRACTION
    size: int | None = None
    classes: int | None = None

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_path(self.path, "FOLDER, which Dataset.save_to_disk wrote")
        check_fraction("data.test_fraction", self.test_fraction)
        for key in ("size", "classes"):
            if (value := getattr(self, key)) is not None:
                check_at_least(f"data.{key}", value, 1 if key == "size" else 2)
        if self.heldout == self.split:
            raise UserError(f"data.heldout={self.heldout} is data.split, too; null holds out data.test_fraction of it")
