"""Snapshots of a run: written whole or not at all, checked before they are read, never executed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn

from neuralmech.errors import UserError
from neuralmech.record.files import write_whole
from neuralmech.record.schema import Position, Rows

# What damaged bytes make zipfile and torch.load raise.
_DAMAGE = (
    AttributeError, EOFError, IndexError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError,
    UnpicklingError, ValueError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def path_of(folder: Path, step: int) -> Path:
    """Where the snapshot at `step` is."""
    return folder / f"step-{step:08d}.pt"


def skeleton_of(folder: Path, step: int) -> Path:
    """Where the copy is of what held the record together then."""
    return path_of(folder, step).with_suffix(".skeleton")


def checkpoints(folder: Path) -> list[int]:
    """Steps of the snapshots in a folder, ascending."""
    found = (p.stem.removeprefix("step-") for p in folder.glob("step-*.pt"))
    return sorted(int(name) for name in found if name.isdecimal())


def load_checkpoint(folder: Path, model: nn.Module, step: int | None = None) -> int:
    """Load the snapshot at `step`, or the last one, into `model`; returns its step. Nothing in it is executed.

    Raises
    ------
    UserError
        If there is none, it is damaged, or it is of another model.
    """
    found = checkpoints(folder)
    if not found or (step is not None and step not in found):
        path = folder / "step-*.pt" if step is None else path_of(folder, step)
        raise UserError(f"{path} does not exist; checkpoints are at steps {', '.join(map(str, found)) or 'none'}")
    path = path_of(folder, found[-1] if step is None else step)
    try:
        content = read_checkpoint(path)
        model.load_state_dict(content["model"])
        return int(content["step"])
    except UserError as error:
        raise UserError(f"{error}; choose another checkpoint") from error
    except _DAMAGE as error:
        raise UserError(f"{_unusable(path, error)}; choose another checkpoint") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a snapshot: tensors and plain data, after its checksums were compared.

    Raises
    ------
    UserError
        If it is damaged or holds anything else, or the content is of another step than the name says.
    """
    try:
        _check_archive(path)
        content = torch.load(path, weights_only=True, map_location="cpu")
        step, said = content["step"], path.stem.removeprefix("step-")
        if type(step) is not int or said != f"{step:08d}":
            raise ValueError(f"its name says step {said}, its content {step}")
        return {"step": step, "model": content["model"], **content}
    except _DAMAGE as error:
        raise _unusable(path, error) from error


def _check_archive(path: Path) -> None:
    """Raise a `ValueError` unless a file is an archive that is whole, and no larger inside than outside."""
    if not path.is_file():  # reading a pipe would wait for ever
        raise ValueError("it is no file")
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("it claims more than it holds")
        damaged = archive.testzip()  # torch.load ignores the checksums that torch.save wrote
    if damaged:
        raise ValueError(f"wrong checksum of {damaged}")


def _unusable(path: Path, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f"{path} cannot be loaded ({reason})")


def save_checkpoint(folder: Path, model: nn.Module, step: int, state: Mapping[str, Any] | None = None) -> Path:
    """Write the model at θ_step, and what else a resumed run needs, to ``folder/step-XXXXXXXX.pt``.

    Raises
    ------
    OSError
        If there is no room; nothing is left of the file then.
    """
    folder.mkdir(exist_ok=True)
    path = path_of(folder, step)
    values = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    content = BytesIO()  # torch.save aborts on a disk that is full
    torch.save({"step": step, "model": values, **(state or {})}, content)
    write_whole(path, content.getbuffer())
    return path


def prune(folder: Path, keep: int | None) -> None:
    """Delete all but the last `keep` snapshots and the first; None keeps all."""
    later = [step for step in checkpoints(folder) if step > 0]
    for step in later[:-keep] if keep else ():
        path_of(folder, step).unlink()
        skeleton_of(folder, step).unlink(missing_ok=True)


def from_position(position: Position) -> dict[str, Any]:
    """A place in the record, with the rows that wait for their chunk to fill."""
    waiting = position.waiting
    return {
        "rows": position.rows,
        "evaluations": position.evaluations,
        "steps": {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in waiting.steps.items()},
        "charges": {
            family: {signal: torch.from_numpy(np.ascontiguousarray(v)) for signal, v in signals.items()}
            for family, signals in waiting.charges.items()
        },
    }


def to_position(state: Mapping[str, Any]) -> Position:
    """Inverse of `from_position`.

    Raises
    ------
    ValueError
        For numbers of rows that are none.
    """
    if not all(type(state[name]) is int and state[name] >= 0 for name in ("rows", "evaluations")):
        raise ValueError("rows and evaluations are whole numbers")
    steps: Mapping[str, Any] = state["steps"]
    older = steps.keys() & {"ascent_norm", "gradient_norm"} == {"gradient_norm"}
    waiting = Rows(
        {"ascent_norm" if older and name == "gradient_norm" else name: v.numpy() for name, v in steps.items()},
        {family: {s: v.numpy() for s, v in signals.items()} for family, signals in state["charges"].items()},
    )
    return Position(state["rows"], state["evaluations"], waiting)
