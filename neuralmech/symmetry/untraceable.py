"""What to tell people whose model cannot be traced: what is wrong, on which line of theirs, and the way out."""

from __future__ import annotations

import copy
import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from neuralmech.errors import UserError

BY_HAND = "or describe its symmetries with neuralmech.SymmetryGroup"
LIBRARIES = (Path(torch.__file__).parent, Path(__file__).parents[1])
STANDARD = Path(traceback.__file__).parent


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


def explain(error: Exception, model: nn.Module, inputs: tuple[Tensor, ...]) -> UserError:
    """One line for what `torch.export` raised."""
    name, line = type(model).__name__, users_line(error)
    where = f" at {line}" if line else ""
    if any(isinstance(e, GuardOnDataDependentSymNode) for e in _chain(error)):
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


def users_line(error: BaseException) -> str:
    """``file:line`` of the innermost code that is neither torch's nor ours in an error's traceback, or nothing."""
    frames = [frame for e in _chain(error) for frame in traceback.extract_tb(e.__traceback__)]
    own = [f for f in frames if Path(f.filename).is_file() and not _is_librarys(Path(f.filename))]
    return f"{short(own[-1].filename)}:{own[-1].lineno}" if own else ""


def short(file: str) -> str:
    """Path relative to the working directory where that is shorter."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def _fails_anyway(model: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a plain forward pass of a copy raises too."""
    try:
        with quiet(), torch.no_grad(), torch.random.fork_rng():
            copy.deepcopy(model).train()(*inputs)
    except Exception:  # whatever a user's code raises
        return True
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_librarys(path: Path) -> bool:
    standard = path.is_relative_to(STANDARD) and "site-packages" not in path.parts
    return standard or any(path.is_relative_to(folder) for folder in LIBRARIES)
