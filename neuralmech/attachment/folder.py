"""The folder of an attached training: whether it may be written, what its record says of the run, what users log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float
from torch import Tensor, nn

from neuralmech.attachment.rules import ForeignRule
from neuralmech.errors import UserError
from neuralmech.provenance import named_device, versions
from neuralmech.record import open_record
from neuralmech.record.files import parts_of
from neuralmech.record.schema import FILE_NAME, LOG_FILE, PART

PRECISIONS = {torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16"}


def prepare(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Make room for a record.

    Raises
    ------
    UserError
        If there is one already and nothing says what to do with it, or both do, or the folder cannot be made.
    """
    if resume and overwrite:
        raise UserError("attach: resume=True goes on with a record that overwrite=True deletes; give one of them")
    there = folder / FILE_NAME
    if there.exists() and not (resume or overwrite):
        raise UserError(
            f"{folder} holds a record already; choose another folder, resume=True to go on behind its last row, or "
            "overwrite=True to delete it"
        )
    if resume and not there.exists():
        raise UserError(f"{folder} holds no record to go on with; leave resume=True out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if overwrite:
            _clear(folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be written ({error.strerror}); choose another") from error


def _clear(folder: Path) -> None:
    """Delete records and what was logged; nothing else that may be there."""
    for name in (FILE_NAME, LOG_FILE):
        (folder / name).unlink(missing_ok=True)
    for part in parts_of(folder):
        shutil.rmtree(part)


def attributes(
    model: nn.Module, rule: ForeignRule, every: int, part: int, parameter: Float[Tensor, "*shape"]
) -> dict[str, object]:
    """Of the record: a config as far as it is known, the rule, versions and device."""
    config: dict[str, Any] = {
        "model": {"name": type(model).__name__},
        "data": {"name": "the loop's own"},
        "optim": rule.config(),
        "track": {"every": every},
        "train": {"precision": PRECISIONS.get(parameter.dtype, "fp32")},
        "attached": True,
        "loss_told": False,
        "part": part,
    }
    return {
        "config": yaml.safe_dump(config, sort_keys=False),
        "git_revision": "",
        "versions": versions("neuralmech", "torch", "numpy", "h5py"),
        "device": named_device(parameter.device),
        "rule": rule.description(),
    }


def next_part(folder: Path) -> int:
    """Number of the next part behind those that are in a folder, of which the record itself is the first."""
    return 1 + max((int(part.name.removeprefix(PART)) for part in parts_of(folder)), default=1)


def can_extend(folder: Path, rule: ForeignRule) -> bool:
    """Whether a record has room for the schedules of a rule, and of no other."""
    with open_record(folder) as record:
        return bool(record.rule.get("apart")) == bool(rule.apart)


def last_row(folder: Path) -> dict[str, float]:
    """Columns of the last row of a record; nothing if it has none."""
    with open_record(folder) as record:
        if not record.rows:
            return {}
        return {name: float(v[0]) for name, v in record.steps(record.rows - 1, record.rows).items()}


def number_of(name: str, value: Any) -> Any:
    """A number that is logged, or a tensor that holds one, without its graph.

    Raises
    ------
    UserError
        If it is none.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.detach().reshape(())
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise UserError(f"log: {name}={what} is no number; log numbers, or tensors of one element") from None


class Log:
    """What users log beside the loss: a line of JSON for each step, whole or not there.

    Numbers may still be on a device; they are asked for when lines are written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG_FILE
        self._pending: list[tuple[int, dict[str, Any]]] = []

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Keep values of a step until `write`."""
        if self._pending and self._pending[-1][0] == step:
            self._pending[-1][1].update(values)
        elif values:
            self._pending.append((step, dict(values)))

    def write(self) -> None:
        """Append what is pending."""
        pending, self._pending = self._pending, []
        if pending:
            lines = [json.dumps({"step": k, **{n: float(v) for n, v in of.items()}}) for k, of in pending]
            with self._path.open("a") as file:
                file.write("".join(f"{line}\n" for line in lines))
