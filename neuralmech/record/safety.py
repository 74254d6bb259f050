"""What a record may be: a file from somewhere else, read without trust.

Nothing in a record is executed. These checks see to it that reading it takes no more memory than the file is
large, times what its filters may compress, and reads no other file.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import yaml

from neuralmech.record.schema import RecordError
from neuralmech.words import first_line, override_word

MAX_CHUNK_BYTES = 1 << 27
FILTERS = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
LZF_RATIO = 100  # its densest instruction says in 3 bytes to repeat 264
MAX_YAML = 1 << 18  # bytes of a config, which people write
NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


def check_name(name: str) -> None:
    """Raise a `ValueError` unless a group's name is a plain word: it becomes the name of a figure's file."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{printable(name)!r} is no name of a family or signal")


def check_dataset(dataset: Any, rows: int | None = None) -> float:
    """Raise a `ValueError` unless a dataset lies in the file itself and in as many bytes as it claims.

    Parameters
    ----------
    rows
        How many rows will be read; None for all.

    Returns
    -------
    float
        The fewest bytes of the file that can hold these rows.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError("a group stands where a dataset should")
    plist = dataset.id.get_create_plist()
    layout = plist.get_layout()
    if layout == h5py.h5d.VIRTUAL or plist.get_external_count():
        raise ValueError(f"{dataset.name} refers to other files")
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if not filters <= FILTERS:
        raise ValueError(f"{dataset.name} needs a filter that records do not use")
    if dataset.size == 0 or rows == 0:
        return 0.0
    shape = dataset.shape if rows is None else (rows, *dataset.shape[1:])
    if layout == h5py.h5d.CHUNKED:
        _check_chunks(dataset, shape)
    least = math.prod(shape) * dataset.dtype.itemsize / (LZF_RATIO if h5py.h5z.FILTER_LZF in filters else 1)
    if least > dataset.id.get_storage_size():
        raise ValueError(f"{dataset.name} claims {shape} but holds fewer")
    return least


def _check_chunks(dataset: h5py.Dataset, shape: tuple[int, ...]) -> None:
    if math.prod(dataset.chunks) * dataset.dtype.itemsize > MAX_CHUNK_BYTES:
        raise ValueError(f"{dataset.name} has chunks of {dataset.chunks}, too large to read")
    needed = math.prod(-(-n // c) for n, c in zip(shape, dataset.chunks, strict=True))
    if needed > dataset.id.get_num_chunks():
        raise ValueError(f"{dataset.name} claims {shape} but holds fewer")


def check_link(group: h5py.Group, name: str) -> None:
    """Raise a `ValueError` unless a member is in the file itself."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{printable(name)} is a link")


def printable(text: str) -> str:
    r"""Text without characters that steer a terminal.

    Examples
    --------
    >>> printable("conv\x1b[2J -> fc")
    'conv?[2J -> fc'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


class PlainLoader(yaml.SafeLoader):
    """Plain data without aliases, which can make a few lines stand for gigabytes, and numbers that no float reaches."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node; refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: Any) -> int:
        """Make an integer; refuse one that neither arithmetic nor text can take."""
        value = super().construct_yaml_int(node)
        if abs(value) > sys.float_info.max:
            raise yaml.YAMLError("an integer is too large")
        return value


PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader.construct_yaml_int)


def plain_yaml(text: str) -> Any:
    """Plain data out of YAML.

    Raises
    ------
    ValueError
        If it is no YAML, or YAML with aliases or tags, or too long.
    """
    if len(text) > MAX_YAML:
        raise ValueError("its config is too long")
    try:
        return yaml.load(text, Loader=PlainLoader)
    except (yaml.YAMLError, RecursionError, ValueError, AttributeError, LookupError) as error:  # odd !!int, !!timestamp
        raise ValueError(f"its config is no plain YAML ({printable(first_line(error))})") from None


def remedy(path: Path) -> str:
    """What to do about a damaged record: a run folder's checkpoints may mend it, but reading never does."""
    if any((path.parent / "checkpoints").glob("step-*.pt")):
        return f"neuralmech train {override_word('resume', path.parent)} mends it from the checkpoints beside it"
    return "train again or restore a copy"


@contextmanager
def naming_damage(path: Path, remedy: str = "train again or restore a copy") -> Iterator[None]:
    """Whatever HDF5 and those who read its values stumble over becomes a `RecordError` that names the file."""
    try:
        yield
    except RecordError:
        raise
    except (KeyError, OSError, ValueError, AttributeError, TypeError, RuntimeError) as error:
        raise RecordError(f"{path} is damaged ({first_line(error)}); {remedy}") from None
