"""What to tell people whose model cannot be traced: what is wrong, on which line of theirs, and the way out."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from neuralmech.errors import UserError, chain, users_line

BY_HAND = "or describe its symmetries with neuralmech.SymmetryGroup"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what torch logs, warns of and prints about a model that it cannot trace; we say it in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def explain(error: Exception, model: nn.Module, inputs: tuple[Shaped[Tensor, "*shape"], ...]) -> UserError:
    """One line for what `torch.export` raised."""
    name, line = type(model).__name__, users_line(error)
    where = f" at {line}" if line else ""
    disk = next((e for e in chain(error) if isinstance(e, OSError) and e.filename), None)
    if disk and not users_line(error):  # torch keeps compiled code even where it only traces
        return UserError(
            f"{disk.filename} cannot be used ({disk.strerror}): PyTorch keeps compiled code there; "
            "set TORCHINDUCTOR_CACHE_DIR to a folder that can be written"
        )
    if any(isinstance(e, GuardOnDataDependentSymNode) for e in chain(error)):
        return UserError(
            f"model: {name} cannot be traced: what it computes depends on the data{where}; "
            f"make its forward() free of branches and numbers taken from data (torch.where instead of if), {BY_HAND}"
        )
    reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    if _fails_anyway(model, inputs):
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        return UserError(
            f"model: {name} cannot take inputs of shape {shapes}: {reason}{where}; "
            "give it the samples that it is made for, or mend its forward()"
        )
    return UserError(f"model: torch.export cannot trace {name}: {reason}{where}; change that line, {BY_HAND}")


def _fails_anyway(model: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a plain forward pass of a copy raises too."""
    try:
        with quiet(), torch.no_grad(), torch.random.fork_rng():
            copy.deepcopy(model).train()(*inputs)
    except Exception:  # noqa: BLE001  (whatever a user's code raises)
        return True
    return False
