"""Tiny ImageNet: 100,000 + 10,000 photographs of 200 classes, 3×64×64 (Stanford CS231n).

The JPEG files are decoded once; the decoded bytes are kept beside the archive.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from tqdm import tqdm

from neuralmech.data.dataset import Dataset
from neuralmech.data.download import Remote, fetch, whole
from neuralmech.data.images import ImageOptions
from neuralmech.data.inputs import Pixels
from neuralmech.data.parts import Samples
from neuralmech.errors import UserError

NAME = "tiny-imagenet-200"
REMOTE = Remote(
    f"{NAME}.zip",
    "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
    (f"https://cs231n.stanford.edu/{NAME}.zip", f"http://cs231n.stanford.edu/{NAME}.zip"),
)
CLASSES = 200
PIXELS = Pixels((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821))


def load_tiny_imagenet(options: ImageOptions) -> Dataset:
    """Images (3, 64, 64) of bytes; the official validation part is held out. Classes are in the order of their names.

    Raises
    ------
    UserError
        If the archive cannot be had, or the decoded file is damaged.
    """
    decoded = options.files / f"{NAME}.npz"
    if not decoded.exists():
        train, test = _decode(fetch(REMOTE, options.files))
        with whole(decoded) as file:
            np.savez(file, train_x=train[0], train_y=train[1], test_x=test[0], test_y=test[1])
    try:
        with np.load(decoded, allow_pickle=False) as content:  # compares checksums
            train, test = (
                Samples(*(torch.from_numpy(content[f"{part}_{which}"]) for which in "xy")) for part in ("train", "test")
            )
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{decoded} is damaged ({error}); delete it, and it will be made again") from error
    return Dataset(train, test, CLASSES, PIXELS)


def _decode(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of the training and of the held-out part."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith(".JPEG")]
        classes = sorted(archive.read(f"{NAME}/wnids.txt").decode().split())
        number = {name: i for i, name in enumerate(classes)}
        train = {n: number[PurePosixPath(n).parts[2]] for n in names if n.startswith(f"{NAME}/train/")}
        lines = archive.read(f"{NAME}/val/val_annotations.txt").decode().splitlines()
        test = {f"{NAME}/val/images/{file}": number[wnid] for file, wnid, *_ in (line.split() for line in lines)}
        return [(_images(archive, list(part)), np.array(list(part.values()), dtype=np.int64)) for part in (train, test)]


def _images(archive: zipfile.ZipFile, names: Sequence[str]) -> np.ndarray:
    """Decoded images (count, 3, 64, 64); grey ones become coloured."""
    from PIL import Image

    images = np.empty((len(names), 3, 64, 64), dtype=np.uint8)
    for i, name in enumerate(tqdm(names, desc="decoding", unit="image", disable=None)):
        with Image.open(BytesIO(archive.read(name))) as image:
            images[i] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return images
