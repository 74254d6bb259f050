"""Snapshots of a model."""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from neuralmech.errors import UserError


def load_checkpoint(folder: Path, model: nn.Module, step: int | None = None) -> int:
    """Load the snapshot at `step`, or the last one, into `model`; returns its step. Nothing in it is executed.

    Raises
    ------
    UserError
        If there is none, it is damaged, or it is of another model.
    """
    found = sorted(folder.glob("step-*.pt"))
    path = folder / f"step-{step:08d}.pt" if step is not None else (found[-1] if found else folder / "step-*.pt")
    if path not in found:
        there = ", ".join(str(int(p.stem.removeprefix("step-"))) for p in found) or "none"
        raise UserError(f"{path} does not exist; checkpoints are at steps {there}")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
        model.load_state_dict(content["model"])
    except (RuntimeError, KeyError, EOFError, UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} cannot be loaded ({reason}); choose another checkpoint") from error
    return int(content["step"])


def save_checkpoint(folder: Path, model: nn.Module, step: int) -> Path:
    """Write the model's state at θ_step to ``folder/step-XXXXXXXX.pt``: temporary file, sync, rename."""
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    temporary = path.with_suffix(".tmp")
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    with temporary.open("wb") as file:
        torch.save({"step": step, "model": state}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path
