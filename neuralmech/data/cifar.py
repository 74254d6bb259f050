"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 small photographs, 3×32×32 (Krizhevsky 2009, *Tiny images*).

The binary version of the archives, which has the same images as the pickled one and no code.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass

import numpy as np
import torch

from neuralmech.data.dataset import Dataset
from neuralmech.data.download import Remote, fetch
from neuralmech.data.images import ImageOptions
from neuralmech.data.inputs import Pixels
from neuralmech.data.parts import Samples

SHAPE = (3, 32, 32)
URL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Archive:
    """File, its members by part, bytes of labels before each image (the last one counts), and facts."""

    remote: Remote
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int
    classes: int
    pixels: Pixels


def _remote(name: str, sha256: str) -> Remote:
    return Remote(name, sha256, (URL + name,))


ARCHIVES = {
    "cifar10": Archive(
        _remote("cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
        tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
        ("cifar-10-batches-bin/test_batch.bin",),
        labels=1,
        classes=10,
        pixels=Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ),
    "cifar100": Archive(
        _remote("cifar-100-binary.tar.gz", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
        ("cifar-100-binary/train.bin",),
        ("cifar-100-binary/test.bin",),
        labels=2,  # of the coarse class, and of the fine one
        classes=100,
        pixels=Pixels((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ),
}


def load_cifar(options: ImageOptions) -> Dataset:
    """Images (3, 32, 32) of bytes; the official test part is held out."""
    archive = ARCHIVES[options.name]
    with tarfile.open(fetch(archive.remote, options.files)) as tar:
        train, test = (_samples(tar, names, archive.labels) for names in (archive.train, archive.test))
    return Dataset(train, test, archive.classes, archive.pixels)


def _samples(tar: tarfile.TarFile, names: tuple[str, ...], labels: int) -> Samples:
    """Records of label bytes and an image, plane by plane."""
    files = [tar.extractfile(name) for name in names]
    content = b"".join(file.read() for file in files if file)
    records = torch.from_numpy(np.frombuffer(content, np.uint8).reshape(-1, labels + int(np.prod(SHAPE))).copy())
    return Samples(records[:, labels:].reshape(-1, *SHAPE), records[:, labels - 1].long())
