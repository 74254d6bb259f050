"""Image data sets that are downloaded once: MNIST, CIFAR-10 and CIFAR-100, Tiny ImageNet.

Of CIFAR the binary version of the archives, which has the same images as the pickled one and no code. The JPEG files of
Tiny ImageNet are decoded once; the decoded bytes are kept beside the archive.
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from neuralmech.data.dataset import Dataset, Pixels
from neuralmech.data.download import fetch, whole
from neuralmech.data.options import ImageOptions
from neuralmech.data.parts import Samples
from neuralmech.data.sources import DECODED, REMOTES, TINY_NAME
from neuralmech.errors import UserError

MNIST_PIXELS = Pixels((0.1307,), (0.3081,))  # of the training part


def load_mnist(options: ImageOptions) -> Dataset:
    """MNIST (LeCun et al. 1998, *Gradient-based learning*): 60,000 + 10,000 handwritten digits.

    Images (1, 28, 28) of bytes; the official test part is held out.
    """
    arrays = [read_idx(fetch(remote, options.files)) for remote in REMOTES["mnist"]]
    train, test = (
        Samples(x.unsqueeze(1), y.long()) for x, y in zip(arrays[::2], arrays[1::2], strict=True)
    )  # fmt: skip
    return Dataset(train, test, classes=10, pixels=MNIST_PIXELS)


def read_idx(path: Path) -> UInt8[Tensor, "*shape"]:
    """An array of bytes in the idx format: 0 0 8 rank, sizes as big-endian 32-bit integers, values."""
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    return torch.from_numpy(values.reshape(shape).copy())


CIFAR_SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class CifarArchive:
    """Its members by part, bytes of labels before each image (the last one counts), and facts."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int
    classes: int
    pixels: Pixels


CIFARS = {
    "cifar10": CifarArchive(
        tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
        ("cifar-10-batches-bin/test_batch.bin",),
        labels=1,
        classes=10,
        pixels=Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ),
    "cifar100": CifarArchive(
        ("cifar-100-binary/train.bin",),
        ("cifar-100-binary/test.bin",),
        labels=2,  # of the coarse class, and of the fine one
        classes=100,
        pixels=Pixels((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ),
}


def load_cifar(options: ImageOptions) -> Dataset:
    """CIFAR (Krizhevsky 2009, *Tiny images*): 50,000 + 10,000 small photographs of 10 or 100 classes.

    Images (3, 32, 32) of bytes; the official test part is held out.
    """
    archive = CIFARS[options.name]
    with tarfile.open(fetch(REMOTES[options.name][0], options.files)) as tar:
        train, test = (_records(tar, names, archive.labels) for names in (archive.train, archive.test))
    return Dataset(train, test, archive.classes, archive.pixels)


def _records(tar: tarfile.TarFile, names: tuple[str, ...], labels: int) -> Samples:
    """Records of label bytes and an image, plane by plane."""
    files = [tar.extractfile(name) for name in names]
    content = b"".join(file.read() for file in files if file)
    records = torch.from_numpy(np.frombuffer(content, np.uint8).reshape(-1, labels + int(np.prod(CIFAR_SHAPE))).copy())
    return Samples(records[:, labels:].reshape(-1, *CIFAR_SHAPE), records[:, labels - 1].long())


TINY_CLASSES = 200
TINY_PIXELS = Pixels((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821))


def load_tiny_imagenet(options: ImageOptions) -> Dataset:
    """Tiny ImageNet (Stanford CS231n): 100,000 + 10,000 photographs of 200 classes.

    Images (3, 64, 64) of bytes; the official validation part is held out. Classes are in the order of their names.

    Raises
    ------
    UserError
        If the archive cannot be had, or the decoded file is damaged.
    """
    decoded = options.files / DECODED["tinyimagenet"]
    if not decoded.exists():
        train, test = _decoded(fetch(REMOTES["tinyimagenet"][0], options.files))
        with whole(decoded) as file:
            np.savez(file, train_x=train[0], train_y=train[1], test_x=test[0], test_y=test[1])
    try:
        with np.load(decoded, allow_pickle=False) as content:  # compares checksums
            train, test = (
                Samples(*(torch.from_numpy(content[f"{part}_{which}"]) for which in "xy")) for part in ("train", "test")
            )
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{decoded} is damaged ({error}); delete it, and it will be made again") from error
    return Dataset(train, test, TINY_CLASSES, TINY_PIXELS)


def _decoded(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of the training and of the held-out part."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith(".JPEG")]
        classes = sorted(archive.read(f"{TINY_NAME}/wnids.txt").decode().split())
        number = {name: i for i, name in enumerate(classes)}
        train = {n: number[PurePosixPath(n).parts[2]] for n in names if n.startswith(f"{TINY_NAME}/train/")}
        lines = archive.read(f"{TINY_NAME}/val/val_annotations.txt").decode().splitlines()
        test = {f"{TINY_NAME}/val/images/{file}": number[wnid] for file, wnid, *_ in (line.split() for line in lines)}
        return [(_pixels(archive, list(part)), np.array(list(part.values()), dtype=np.int64)) for part in (train, test)]


def _pixels(archive: zipfile.ZipFile, names: Sequence[str]) -> np.ndarray:
    """Decoded images (count, 3, 64, 64); grey ones become coloured."""
    from PIL import Image

    images = np.empty((len(names), 3, 64, 64), dtype=np.uint8)
    for i, name in enumerate(tqdm(names, desc="decoding", unit="image", disable=None)):
        with Image.open(BytesIO(archive.read(name))) as image:
            images[i] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return images
