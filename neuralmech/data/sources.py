"""What each data set consists of and needs: its files of the network, and words for people. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Remote:
    """A file by its name, its published checksum, and where it can be had, best first."""

    name: str
    sha256: str
    urls: tuple[str, ...]


def _at(name: str, sha256: str, *mirrors: str) -> Remote:
    return Remote(name, sha256, tuple(mirror + name for mirror in mirrors))


_MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_TINY = ("https://cs231n.stanford.edu/", "http://cs231n.stanford.edu/")
TINY_NAME = "tiny-imagenet-200"

# Data set → its files.
REMOTES: dict[str, tuple[Remote, ...]] = {
    "mnist": (
        _at("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", *_MNIST),
        _at("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", *_MNIST),
        _at("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", *_MNIST),
        _at("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", *_MNIST),
    ),
    "cifar10": (
        _at("cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", _CIFAR),
    ),
    "cifar100": (
        _at("cifar-100-binary.tar.gz", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", _CIFAR),
    ),
    "tinyimagenet": (
        _at(f"{TINY_NAME}.zip", "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821", *_TINY),
    ),
}
# Data set → what is made of its files and kept beside them.
DECODED = {"tinyimagenet": f"{TINY_NAME}.npz"}


@dataclass(frozen=True)
class About:
    """A data set in words: what it is, how many examples of which shape, bytes on the disk, and what it needs.

    `key` is the option that must be set, `library` what must be there to read it, `install` how that comes there.
    """

    what: str
    examples: str
    shape: str
    size: str = "-"
    needs: str = ""
    key: str = ""
    library: str | None = None
    install: str = ""

    @property
    def is_missing(self) -> bool:
        """Whether its library is not there."""
        return self.library is not None and find_spec(self.library) is None


DOWNLOAD = "download"
ABOUT = {
    "digits": About(
        "handwritten digits, shipped with scikit-learn", "1,797", "1×8×8",
        needs="scikit-learn", library="sklearn", install="pip install scikit-learn",
    ),
    "synthetic": About("Gaussian inputs, labelled by a random teacher", "data.size", "data.shape"),
    "tokens": About("modular sums or a Markov chain", "data.size", "data.length"),
    "mnist": About("handwritten digits", "60,000 + 10,000", "1×28×28", "11 MB", DOWNLOAD),
    "cifar10": About("photographs of 10 classes", "50,000 + 10,000", "3×32×32", "170 MB", DOWNLOAD),
    "cifar100": About("photographs of 100 classes", "50,000 + 10,000", "3×32×32", "170 MB", DOWNLOAD),
    "tinyimagenet": About("photographs of 200 classes", "100,000 + 10,000", "3×64×64", "1.7 GB", DOWNLOAD),
    "imagefolder": About("images of your own, a folder for each class", "yours", "3×data.size²", key="data.path"),
    "text": About("a text, character by character: yours, or sonnets of Shakespeare", "by data.length", "data.length"),
    "hf": About(
        "a data set of your own that Dataset.save_to_disk wrote", "yours", "yours",
        needs="datasets", key="data.path", library="datasets", install="pip install 'neuralmech[hf]'",
    ),
    "custom": About("your own, by a function that gives it", "yours", "yours", key="data._target_"),
}  # fmt: skip
