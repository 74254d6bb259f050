"""What a record may be: a file from somewhere else, read without trust.

Nothing in a record is executed. Before anything is read, a file is checked to be a record, whole, and no larger than it
says: reading it takes no more memory than the file is large, times what its filters may compress, and reads no other
file.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from neuralmech.record.schema import (
    EVALUATION_COLUMNS,
    FORMAT,
    LATER_COLUMNS,
    NORMS,
    RULE_COLUMNS,
    RULES,
    SCHEMA_VERSION,
    STEP_COLUMNS,
    RecordError,
)
from neuralmech.words import first_line, override_word, printable

MAX_CHUNK_BYTES = 1 << 27
FILTERS = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
LZF_RATIO = 100  # its densest instruction says in 3 bytes to repeat 264
MAX_YAML = 1 << 18  # bytes of a config, which people write
NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
INDICES = {"index": {"site", "channel"}, "parameters_index": {"name", "entry", "charge"}}
INDEX_OF_NORMS = {"index": {"name", "shape", "entries"}}


def check_file(file: h5py.File, path: Path) -> None:
    """Raise a `RecordError` unless the file holds a record of a known version; see `naming_damage` for the rest."""
    if attribute(file, "format") != FORMAT:
        raise RecordError(f"{path} is an HDF5 file but no neuralmech record; give a run folder")
    version = file.attrs.get("schema_version")
    if not isinstance(version, (int, np.integer)) or version > SCHEMA_VERSION:
        raise RecordError(
            f"{path} has schema version {version}, this neuralmech reads up to {SCHEMA_VERSION}; upgrade neuralmech"
        )
    _check_content(file)


def _check_content(file: h5py.File) -> None:
    """Everything that is read later is in the file, whole, and all of it together no larger than the file says."""
    committed, evaluation = _count(file, "committed"), _count(_group(file, "evaluation"), "committed")
    least = 0.0
    for name in STEP_COLUMNS:
        if name not in LATER_COLUMNS or name in _group(file, "steps"):
            least += _check_column(_group(file, "steps"), name, committed)
    for name in EVALUATION_COLUMNS:
        least += _check_column(file["evaluation"], name, evaluation)
    charges = _group(file, "charges")
    for family in charges:
        check_name(family)
        attribute(_group(charges, family), "form")
        least += _check_family(_group(charges, family), committed)
    if NORMS in file:
        least += _check_family(_group(file, NORMS), committed, INDEX_OF_NORMS)
    if RULES in file:
        least += _check_family(_group(file, RULES), committed)
        if lacking := set(RULE_COLUMNS) - set(file[RULES]):
            raise ValueError(f"{RULES} lacks {' or '.join(sorted(lacking))}")
    if least > file.id.get_filesize():  # datasets may say that the same bytes are theirs
        raise ValueError("its datasets claim more than the file holds")
    for name in ("config", "status", "versions"):
        attribute(file, name)


def _check_family(group: h5py.Group, committed: int, indices: Mapping[str, set[str]] = INDICES) -> float:
    if "index" not in group:
        raise ValueError(f"{group.name} has no index")
    least = 0.0
    for name in sorted(group, key=lambda k: not k.endswith("index")):  # the indices first
        check_name(name)
        check_link(group, name)
        if name.endswith("index"):
            least += check_dataset(group[name])
        else:
            own = f"{name}_index"
            width = group[own if own in group else "index"].shape[0]
            least += _check_column(group, name, committed, width=width)
    for name, columns in indices.items():
        if name in group and not columns <= set(group[name].dtype.names or ()):
            raise ValueError(f"{name} lacks {' or '.join(sorted(columns))}")
    return least


def _check_column(group: h5py.Group, name: str, rows: int, width: int | None = None) -> float:
    """A dataset of numbers with at least `rows` rows, and `width` columns if it has columns."""
    check_link(group, name)
    dataset = group[name]
    least = check_dataset(dataset, rows)
    shape = (dataset.shape[0],) if width is None else (dataset.shape[0], width)
    if dataset.shape != shape or dataset.dtype.kind not in "iuf":
        raise ValueError(f"{dataset.name} is {dataset.dtype} {dataset.shape}")
    if dataset.shape[0] < rows:
        raise ValueError(f"fewer rows than committed in {dataset.name}")
    return least


def _count(group: h5py.Group, name: str) -> int:
    check_link(group, name)
    dataset = group[name]
    check_dataset(dataset)
    if dataset.shape not in ((), (1,)) or dataset.dtype.kind not in "iu" or dataset[()].item() < 0:
        raise ValueError(f"{dataset.name} is no number of rows")
    return dataset[()].item()


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    check_link(parent, name)
    if not isinstance(parent[name], h5py.Group):
        raise ValueError(f"{name} is no group")
    return parent[name]


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


def check_name(name: str) -> None:
    """Raise a `ValueError` unless a group's name is a plain word: it becomes the name of a figure's file."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{printable(name)!r} is no name of a family or signal")


def attribute(target: h5py.Group, name: str, default: str = "") -> str:
    """Text of an attribute.

    Raises
    ------
    ValueError
        If it is no text.
    """
    value = target.attrs[name] if name in target.attrs else default  # noqa: SIM401  (get takes a damaged one for none)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise ValueError(f"{target.name} has a {name} that is no text")
    return value


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
