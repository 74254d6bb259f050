"""Everything a run needs before its first step."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuralmech.config import Config, to_yaml
from neuralmech.data import Dataset, load_data, settle
from neuralmech.data.draws import seed_all
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from neuralmech.losses import Called, Loss
from neuralmech.models import build_model
from neuralmech.outputs import output_of
from neuralmech.provenance import named_device, versions
from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.names import FAMILIES
from neuralmech.training.process import patience
from neuralmech.training.update import parameter_type
from neuralmech.words import first_line


@dataclass(frozen=True)
class Setup:
    """Data and model on the device, and the model's symmetries."""

    device: torch.device
    data: Dataset
    model: nn.Module
    symmetries: Symmetries


# Options of the record that are of one family, and what that is in words.
NEEDED = (("rotations", "linear", "consecutive linear maps"), ("sides", "rescale", "rescale charges"))


def prepare(config: Config, *, bare: bool = False) -> Setup:
    """Load data, build and trace the model; the same config and seed give the same result.

    With `bare`, torchvision's models have shapes and no numbers, which is enough to trace them: drawing VGG's takes
    longer than finding its symmetries. What takes longer than a few seconds there is named on stderr.

    Raises
    ------
    UserError
        If data, model and device do not fit together.
    """
    device = choose_device(config.device, config.train.precision)
    dtype = parameter_type(config.train.precision)
    with _affordable("data"):
        data = load_data(config.data, config.loss)
    seed_all(config.seed)
    bare = bare and config.model.name == "torchvision" and not isinstance(config.loss, Called)
    with _affordable("model"), torch.device("meta") if bare else nullcontext():
        model = build_model(config.model, data.shape, data.classes, tokens=data.has_tokens).to(dtype).train()
    with patience("finding symmetries") as progress:
        symmetries = find_symmetries(model, data.example(dtype), config.loss, data.example_targets(), progress=progress)
    for family in config.track.families or ():
        if family not in symmetries.families:
            there = ", ".join(symmetries.families) or "none"
            raise UserError(f"track.families={family}: this model has no such charges; it has {there}")
    tracked = {*symmetries.families} & {*(config.track.families or FAMILIES)}
    for option, family, what in NEEDED:
        if getattr(config.track, option) and family not in tracked:
            raise UserError(
                f"track.{option}=true: this model has no {what} among the families that are tracked; "
                f"track {family} too, or use track.{option}=false"
            )
    settled = settle(data, config.data, device, dtype)
    if not bare:
        _check_held_out(model.to(device), settled, config.loss)
    return Setup(device, settled, model, symmetries)


@torch.no_grad()
def _check_held_out(model: nn.Module, data: Dataset, loss: Loss) -> None:
    """Raise a `UserError` if the held-out samples have another shape than those of training, which the model refuses.

    It may take both (tokens of another length); one that does not would say so at the first evaluation only.
    """
    (x, y), wanted = next(data.held_out(2)), (data.shape, tuple(data.example_targets().shape[1:]))
    if (shapes := (tuple(x.shape[1:]), tuple(y.shape[1:]))) == wanted:
        return
    try:
        loss.tally(output_of(model.eval()(x)), y)
    except (UserError, RuntimeError, ValueError, IndexError) as error:
        raise UserError(
            f"data: held-out inputs and targets of shape {shapes} do not go with this model ({first_line(error)}); "
            f"make them like those of training, {wanted}"
        ) from error
    finally:
        model.train()


@contextmanager
def _affordable(key: str) -> Iterator[None]:
    """What PyTorch cannot allocate, or not even count, becomes a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in ("can't allocate memory", "overflow")):
            raise
        raise UserError(f"{key} takes more memory than there is; make it smaller") from error


def summary(setup: Setup) -> dict[str, Any]:
    """Charges by family and site, what has none and why, and barriers, as plain data."""
    found = setup.symmetries
    total = sum(p.numel() for p in setup.model.parameters())
    return {
        "sites": found.sites,
        "uncovered": dict(found.uncovered),
        "barriers": [str(b) for b in found.barriers],
        "approximations": list(found.approximations),
        "share": found.covered_parameters() / total,
        "dependent": found.dependent,
    }


def choose_device(name: str, precision: str = "fp32") -> torch.device:
    """Resolve ``auto | cpu | cuda | cuda:N``.

    Raises
    ------
    UserError
        If a GPU is asked for that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name} asks for a GPU that is not there; use device=cpu")
    if device.type == "cuda":  # the same numbers every time, and float32 that is float32 unless asked otherwise
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return device


def provenance(config: Config, device: torch.device, processes: int = 1) -> dict[str, object]:
    """Attributes of the record: what ran, where, with which versions."""
    return {
        "config": to_yaml(config),
        "git_revision": _git_revision(),
        "versions": versions("neuralmech", "torch", "numpy", "h5py", "hydra-core"),
        "seed": config.seed,
        "device": named_device(device),
        "processes": processes,
    }


def _git_revision() -> str:
    """Revision of the source tree, or an empty string for an installed package, or where git does not say."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):  # there is no git, or its disk hangs
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
