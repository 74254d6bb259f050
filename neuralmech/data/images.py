"""Image data sets that are downloaded once: what they have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from neuralmech.checks import check_at_least, check_share
from neuralmech.data.download import data_folder
from neuralmech.data.options import AugmentOptions, ResidencyOptions


@dataclass
class ImageOptions(ResidencyOptions):
    """Batch size in images; `folder` of the downloaded files (null: ``$NEURALMECH_DATA``, else the user's cache).

    `label_noise` is the share of a batch's labels that are drawn anew at every step.
    """

    name: str = "mnist"
    batch_size: int = 64
    label_noise: float = 0.0
    folder: str | None = None
    augment: AugmentOptions = field(default_factory=AugmentOptions)

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_at_least("data.batch_size", self.batch_size, 2)
        check_share("data.label_noise", self.label_noise)
        self.augment.check()

    @property
    def files(self) -> Path:
        """Folder of this set's files."""
        return data_folder(self.folder, self.name)
