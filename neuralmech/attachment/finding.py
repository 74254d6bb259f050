"""The symmetries of what optimisers train, as an attached loop calls it; claims that fail on its batch are left out."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from neuralmech.attachment.example import Example, LossOfOutput, adapted, only_trained, some_targets
from neuralmech.attachment.recording import Selection
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError, is_librarys
from neuralmech.losses import Called, Loss
from neuralmech.outputs import output_of
from neuralmech.symmetry.group import Symmetries
from neuralmech.verification.claims import SymmetryGroup, believe
from neuralmech.verification.quick import SAMPLES, NotVerifiedError, quickly_verified


@dataclass(frozen=True)
class Request:
    """What a user asks for, see `attach`."""

    folder: Path
    loss: LossOfOutput
    measured: Selection
    verify: bool = True
    groups: Sequence[SymmetryGroup] = ()
    resume: bool = False


def find(model: nn.Module, trained: set[str], example: Example, wanted: Request) -> Symmetries:
    """Find and check the symmetries of a model of which some parameters are trained, on an example of its inputs.

    Raises
    ------
    UserError
        If the model cannot be called or traced so, or lacks a family that is wanted.
    """
    with only_trained(model, trained):
        twin, loss = adapted(model, example, wanted.loss)
        targets = some_targets(twin, example.tensors, loss)
        if wanted.groups:
            return believe(twin, wanted.groups, example.tensors, targets, loss)
        found = find_symmetries(twin, example.tensors, loss, targets)
        for family in wanted.measured.families or ():
            if family not in found.families:
                there = ", ".join(found.families) or "none"
                raise UserError(f"families={family}: this model has no such charges; it has {there}")
        return _holding(twin, example, targets, found, loss) if wanted.verify else found


def refuse_shards(model: nn.Module) -> None:
    """Raise a `UserError` for parameters of which each process has a piece: the charges are sums over whole rows."""
    sharded = next((name for name, p in model.named_parameters() if hasattr(p, "full_tensor")), None)  # a DTensor
    if sharded is None and not any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()):
        return
    what = f"{sharded} is in pieces, one for each process" if sharded else "FullyShardedDataParallel cuts it to pieces"
    raise UserError(
        f"attach: the model is sharded ({what}), and charges are of whole parameters; attach where "
        "torch.nn.parallel.DistributedDataParallel trains it, or one process"
    )


def _holding(model: nn.Module, example: Example, targets: Tensor, claims: Symmetries, loss: Loss) -> Symmetries:
    """The claims that hold on the example; those that fail are named and left out."""
    if not claims.families:
        return claims
    of_any_number = not isinstance(loss, Called)  # a function may have targets of its own
    inputs, wanted = _some(example.tensors, targets) if of_any_number else (example.tensors, targets)

    def value(twin: nn.Module) -> Tensor:
        with torch.enable_grad():
            return loss(output_of(twin(*inputs)), wanted)

    try:
        table = quickly_verified(model, inputs, wanted, claims, loss, value)
    except NotVerifiedError as error:
        tell(f"claims of symmetry are not checked: {error}")
        return claims
    failed = table[~table["holds"].astype(bool)]
    sites: dict[str, set[str]] = {}
    for family, site in zip(failed["family"], failed["site"], strict=True):
        sites.setdefault(family, set()).add(site)
    if sites:
        listed = ", ".join(f"{family} {site!r}" for family, names in sites.items() for site in sorted(names))
        tell(f"claims of symmetry that do not hold are left out: {listed}; please report the model")
    return claims.without(sites)


def _some(tensors: tuple[Tensor, ...], targets: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """A few samples, where all tensors have as many."""
    sizes = {len(x) if x.dim() else 0 for x in (*tensors, targets)}
    if len(sizes) > 1 or not sizes or min(sizes) <= SAMPLES:
        return tensors, targets
    return tuple(x[:SAMPLES] for x in tensors), targets[:SAMPLES]


def tell(text: str) -> None:
    """Warn the user, at the line of their own that led here."""
    frames = (frame.filename for frame in reversed(traceback.extract_stack()))
    inside = next(n for n, name in enumerate(frames) if not is_librarys(Path(name)))
    warnings.warn(f"neuralmech: {text}", stacklevel=inside)
