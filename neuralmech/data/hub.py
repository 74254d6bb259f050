"""A data set of Hugging Face's library `datasets`, as its ``save_to_disk`` leaves it in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset as Indexed

from neuralmech.checks import check_choice
from neuralmech.data.custom import PARTS, check_alike, pixels_of, samples_of
from neuralmech.data.dataset import Dataset, held_out
from neuralmech.data.options_own import HubOptions, place
from neuralmech.data.parts import Items
from neuralmech.data.pictures import to_bytes
from neuralmech.data.sources import ABOUT
from neuralmech.errors import UserError
from neuralmech.words import first_line

KEY = "data=hf"


@dataclass(frozen=True)
class Decoded(Indexed):
    """Pairs of an image, bytes (3, height, width), and its target, out of two columns."""

    rows: Any
    inputs: str
    targets: str
    size: int | None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Any]:
        """An image and its target."""
        row = self.rows[i]
        return to_bytes(row[self.inputs], self.size), row[self.targets]


def load_hub(options: HubOptions) -> Dataset:
    """Read a folder: images one by one, as those of a torch data set; numbers, arrays and tokens at once.

    Raises
    ------
    UserError
        If the library is not there, nor such a folder, split or column, or a column holds what no model takes.
    """
    rows = _parts(_opened(options), options)
    for part in rows:
        check_choice("data.inputs", options.inputs, part.column_names)
        if options.targets is not None:
            check_choice("data.targets", options.targets, part.column_names)
    parts = _images(rows, options) if _is_images(rows[0], options) else _arrays(rows, options)
    check_alike(KEY, *parts)
    labels = getattr(rows[0].features[options.targets], "num_classes", 0) if options.targets else 0
    return Dataset(parts[0], parts[1], options.classes or labels, pixels_of(KEY, parts[0]))


def _opened(options: HubOptions) -> Any:
    """What the folder holds: one set of rows, or several by their names."""
    try:
        from datasets import load_from_disk  # pyright: ignore[reportMissingImports]  # which may not be installed
    except ImportError as error:
        raise UserError(f"{KEY} needs the library datasets ({first_line(error)}); {ABOUT['hf'].install}") from error
    path = place(str(options.path))
    wrong = f"data.path={options.path} is no folder that Dataset.save_to_disk wrote"
    if not path.is_dir():
        raise UserError(f"{wrong}: there is none; give one, or write it")
    try:
        return load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:  # what is no such folder, or damaged
        raise UserError(f"{wrong} ({first_line(error)}); write it again") from error


def _parts(opened: Any, options: HubOptions) -> tuple[Any, Any]:
    """Rows of the training part and of the held-out one."""
    if not isinstance(opened, dict):
        train, test = held_out(len(opened), options.test_fraction)
        return opened.select(train.tolist()), opened.select(test.tolist())
    check_choice("data.split", options.split, opened)
    if options.heldout is None:
        return _parts(opened[options.split], options)
    if options.heldout not in opened:
        raise UserError(
            f"data.heldout={options.heldout} is not in {options.path}, which has {', '.join(opened)}; "
            "choose one of these, or null, which holds out data.test_fraction"
        )
    return opened[options.split], opened[options.heldout]


def _is_images(rows: Any, options: HubOptions) -> bool:
    return type(rows.features[options.inputs]).__name__ == "Image"


def _images(rows: tuple[Any, Any], options: HubOptions) -> list[Items]:
    if options.targets is None:
        raise UserError(f"data.targets=null: {options.inputs} holds images; name the column of their labels")
    decoded = (Decoded(part, options.inputs, options.targets, options.size) for part in rows)
    return [Items(part, name) for part, name in zip(decoded, PARTS, strict=True)]


def _arrays(rows: tuple[Any, Any], options: HubOptions) -> list[Any]:
    given: list[np.ndarray] = []
    for part in rows:
        x = _array(part, "inputs", options.inputs)
        if options.targets is not None:
            given += [x, _array(part, "targets", options.targets)]
        elif x.dtype.kind not in "iu" or x.ndim != 2 or x.shape[1] < 2:
            raise UserError(f"data.targets=null: {options.inputs} holds no lists of tokens; name a column of targets")
        else:
            given += [x[:, :-1].astype(np.int64), x[:, 1:].astype(np.int64)]
    return list(samples_of(KEY, given))


def _array(rows: Any, key: str, column: str) -> np.ndarray:
    """A column (rows, …) of numbers: bytes as they are, real ones in float64."""
    chosen = rows.select_columns([column])
    values = np.asarray(chosen.with_format("numpy")[:][column])
    if values.dtype.kind == "f":
        values = np.asarray(chosen.with_format("numpy", dtype=np.float64)[:][column])
    if values.dtype.kind not in "biuf":
        what = "lists of different lengths, or no numbers" if values.dtype == object else "no numbers"
        raise UserError(
            f"data.{key}={column} holds {what} ({rows.features[column]}); bring them to one shape, "
            "text labels by Dataset.class_encode_column"
        )
    return values.astype(np.uint8) if _stored_as(rows.features[column]) == "uint8" else values


def _stored_as(feature: Any) -> str:
    """Type of the numbers in a column, in lists of any depth; the library gives all whole ones as int64."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return str(getattr(feature, "dtype", ""))
