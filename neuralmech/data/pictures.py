"""Images in folders, one for each class: found in one order everywhere, and decoded when they are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset as Indexed
from torchvision.transforms import functional

from neuralmech.data.custom import PARTS, pixels_of
from neuralmech.data.dataset import Dataset, held_out
from neuralmech.data.options_own import ImageFolderOptions, place
from neuralmech.data.parts import Items
from neuralmech.errors import UserError

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
TRAINING, HELD_OUT = "train", ("val", "test")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what PIL raises


@dataclass(frozen=True)
class Pictures(Indexed):
    """Pairs of an image, bytes (3, size, size), and the number of its class."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    size: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """An image and its class.

        Raises
        ------
        UserError
            If the file cannot be read; it is named.
        """
        try:
            with Image.open(self.files[i]) as image:
                return to_bytes(image, self.size), self.labels[i]
        except UNREADABLE as error:
            why = getattr(error, "strerror", None) or str(error).partition(" '")[0]
            raise UserError(f"{self.files[i]} cannot be read as an image ({why}); mend it or remove it") from error

    def some(self, indices: Int64[Tensor, " samples"]) -> Pictures:
        """Those with some numbers."""
        chosen = indices.tolist()
        files, labels = (tuple(values[i] for i in chosen) for values in (self.files, self.labels))
        return Pictures(files, labels, self.classes, self.size)


def load_image_folder(options: ImageFolderOptions) -> Dataset:
    """Find the images of a folder; classes and files are in the order of their names.

    Raises
    ------
    UserError
        If there is no such folder, or there are no two classes with images in it, or the parts' classes differ.
    """
    top = place(str(options.path))
    if not top.is_dir():
        raise UserError(f"data.path={options.path} is no folder; give one that has a folder of images for each class")
    others = [top / name for name in HELD_OUT if (top / name).is_dir()]
    if (top / TRAINING).is_dir() and others:
        train, test = (_pictures(folder, options.size) for folder in (top / TRAINING, others[0]))
        if train.classes != test.classes:
            odd = sorted(set(train.classes) ^ set(test.classes))[0]
            has, lacks = (top / TRAINING, others[0]) if odd in train.classes else (others[0], top / TRAINING)
            raise UserError(f"data.path: class {odd} of {has} is not in {lacks}; give both parts the same classes")
    else:
        everything = _pictures(top, options.size)
        train, test = (everything.some(part) for part in held_out(len(everything), options.test_fraction))
    parts = [Items(pictures, name) for pictures, name in zip((train, test), PARTS, strict=True)]
    return Dataset(*parts, classes=len(train.classes), pixels=pixels_of("data=imagefolder", parts[0]))


def _pictures(folder: Path, size: int) -> Pictures:
    """All images below the folders of classes; what is hidden, and files of other kinds, are left out."""
    classes = [path for path in _sorted(folder.iterdir()) if path.is_dir()]
    if len(classes) < 2:
        what = f"one folder, {classes[0].name}" if classes else "no folders"
        raise UserError(f"data.path: {folder} holds {what}; give it a folder of images for each class, two or more")
    files, labels = [], []
    for label, path in enumerate(classes):
        found = [file for file in _below(path) if file.suffix.lower() in SUFFIXES]
        if not found:
            raise UserError(f"data.path: class folder {path} holds no images; put some there, or remove it")
        files += found
        labels += [label] * len(found)
    return Pictures(tuple(files), tuple(labels), tuple(path.name for path in classes), size)


def _below(folder: Path) -> list[Path]:
    """Files of a folder and of those in it."""
    found = []
    for path in _sorted(folder.iterdir()):
        found += _below(path) if path.is_dir() and not path.is_symlink() else [path] if path.is_file() else []
    return found


def _sorted(paths) -> list[Path]:
    return sorted((path for path in paths if not path.name.startswith(".")), key=lambda path: path.name)


def to_bytes(image: Image.Image, size: int | None = None) -> UInt8[Tensor, "channels height width"]:
    """Bytes (3, height, width) of an image, upright as its camera says, scaled and cut to a square if it has a size.

    Grey images become coloured, those of 16 bits lose the lower ones, and what is transparent lies on black.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, also where PIL has 32 for them
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("real numbers, where bytes are expected")
    elif image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    image = image.convert("RGB")
    if size is not None:
        image = functional.center_crop(functional.resize(image, [size]), [size, size])  # type: ignore[arg-type]
    return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())
