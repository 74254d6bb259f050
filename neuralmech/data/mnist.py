"""MNIST: 60,000 + 10,000 handwritten digits, 1×28×28 (LeCun et al. 1998, *Gradient-based learning*)."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuralmech.data.dataset import Dataset
from neuralmech.data.download import Remote, fetch
from neuralmech.data.images import ImageOptions
from neuralmech.data.inputs import Pixels
from neuralmech.data.parts import Samples

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
PIXELS = Pixels((0.1307,), (0.3081,))  # of the training part


def load_mnist(options: ImageOptions) -> Dataset:
    """Images (1, 28, 28) of bytes; the official test part is held out."""
    remotes = [Remote(name, sha, tuple(m + name for m in MIRRORS)) for name, sha in FILES.items()]
    arrays = [read_idx(fetch(remote, options.files)) for remote in remotes]
    train, test = (
        Samples(x.unsqueeze(1), y.long()) for x, y in zip(arrays[::2], arrays[1::2], strict=True)
    )  # fmt: skip
    return Dataset(train, test, classes=10, pixels=PIXELS)


def read_idx(path: Path) -> Tensor:
    """An array of bytes in the idx format: 0 0 8 rank, sizes as big-endian 32-bit integers, values."""
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    return torch.from_numpy(values.reshape(shape).copy())
