"""Image data sets that are downloaded once: what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neuralmech.data.download import data_folder
from neuralmech.data.options import BatchOptions


@dataclass
class ImageOptions(BatchOptions):
    """`folder` of the downloaded files (null: ``$NEURALMECH_DATA``, else the user's cache)."""

    name: str = "mnist"
    folder: str | None = None

    @property
    def files(self) -> Path:
        """Folder of this set's files."""
        return data_folder(self.folder, self.name)
