"""Errors meant for people: one line that names the key or file, what is wrong, and the remedy."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

from neuralmech.words import short

OURS, STANDARD = Path(__file__).parent, Path(traceback.__file__).parent


class UserError(ValueError):
    """Wrong usage, configuration or input file; the command line exits with code 2."""


class RunError(RuntimeError):
    """A run that could not be finished; the command line exits with code 1."""


class NotFiniteError(RunError):
    """A run that ended because its loss, a charge or a parameter was not finite."""


def users_line(error: BaseException) -> str:
    """``file:line`` of the innermost code that is neither torch's nor ours in an error's traceback, or nothing."""
    frames = [frame for e in chain(error) for frame in traceback.extract_tb(e.__traceback__)]
    own = [f for f in frames if Path(f.filename).is_file() and not is_librarys(Path(f.filename))]
    return f"{short(own[-1].filename)}:{own[-1].lineno}" if own else ""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_librarys(path: Path) -> bool:
    """Whether a file is of the standard library, of torch or of ours."""
    _, found, installed = str(path).replace("\\", "/").rpartition("/site-packages/")
    standard = path.is_relative_to(STANDARD) and not found
    return standard or installed.startswith("torch/") or path.is_relative_to(OURS)
