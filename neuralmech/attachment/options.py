"""What users give to `attach`: options, checked, and optimisers, without what frameworks put around them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from torch import nn
from torch.optim import Optimizer

from neuralmech.attachment.example import LossOfOutput
from neuralmech.attachment.finding import Request
from neuralmech.attachment.recording import Selection
from neuralmech.checks import check_at_least, check_choice
from neuralmech.errors import UserError
from neuralmech.loggers import check_installed
from neuralmech.losses import as_loss
from neuralmech.record.schema import ALL_SIGNALS, NORMS_OF
from neuralmech.symmetry.names import FAMILIES
from neuralmech.verification.claims import SymmetryGroup


class AttachOptions(TypedDict, total=False):
    """What is recorded, see `attach`."""

    families: Sequence[str]
    charges: Literal["all", "site", "sample"]
    signals: Sequence[str]
    norms_of: Sequence[str]
    every: int
    verify: bool
    groups: Sequence[SymmetryGroup]
    logger: str
    logger_every: int


def path_of(folder: object) -> Path:
    """A folder.

    Raises
    ------
    UserError
        If it is no path.
    """
    if not isinstance(folder, (str, PathLike)):
        raise UserError(f"attach: folder={folder!r} is no path; give the run's folder, such as 'outputs/mine'")
    return Path(folder)


def wanted_of(folder: Path, loss: LossOfOutput, resume: bool, options: AttachOptions) -> Request:
    """Options, checked."""
    if isinstance(loss, str) or not callable(loss):
        as_loss(loss)
    for name in ("families", "signals", "norms_of"):
        if isinstance(one := options.get(name), str):
            options[name] = [one]
    known = AttachOptions.__annotations__
    for name in options:
        if name not in known:
            raise UserError(f"attach: {name}= is no option; there are {', '.join(known)}")
    for family in options.get("families", ()):
        check_choice("families", family, FAMILIES)
    for signal in options.get("signals", ()):
        check_choice("signals", signal, ALL_SIGNALS)
    for of in options.get("norms_of", ()):
        check_choice("norms_of", of, NORMS_OF)
    check_choice("charges", options.get("charges", "all"), ("all", "site", "sample"))
    check_at_least("every", options.get("every", 1), 1)
    check_at_least("logger_every", options.get("logger_every", 1), 1)
    check_installed(options.get("logger", "none"))
    rest: dict[str, Any] = {k: v for k, v in options.items() if k not in ("groups", "verify")}
    groups = tuple(options.get("groups", ()))
    return Request(folder, loss, Selection(**rest), options.get("verify", True), groups, resume)


def stand_in(model: nn.Module, optimizer: Any) -> Optimizer | None:
    """What stands for an update that the loop takes itself, None or a rule's name; it never takes a step."""
    if optimizer is not None and not isinstance(optimizer, str):
        return None
    kind = torch.optim.SGD if optimizer in (None, "sgd") else type(optimizer, (torch.optim.SGD,), {})
    return kind([p for p in model.parameters() if p.requires_grad], lr=1.0)


def bare_optimizers(given: Any) -> list[Optimizer]:
    """Optimisers, one or several, without what is put around them."""
    return [_bare(one) for one in (given if isinstance(given, (list, tuple)) else [given])]


def _bare(optimizer: Any) -> Optimizer:
    """The optimiser itself, of what Lightning and accelerate put around it.

    accelerate's is an `Optimizer` by name alone: it was never initialised as one, and has no hooks.
    """
    while not (isinstance(optimizer, Optimizer) and hasattr(optimizer, "_optimizer_step_pre_hooks")):
        held = getattr(optimizer, "optimizer", None)
        if held is None or held is optimizer:
            raise UserError(
                f"attach: {type(optimizer).__name__} is no torch.optim.Optimizer; give the optimiser itself"
            )
        optimizer = held
    return optimizer


def is_first_rank() -> bool:
    """Whether this is the process of a distributed training that records."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank())
