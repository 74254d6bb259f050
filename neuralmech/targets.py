"""Code of the user's own, named by a ``_target_`` on the command line or in a config file, never by a record."""

from __future__ import annotations

import pydoc
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from neuralmech.errors import UserError, users_line


def locate(key: str, target: str) -> Callable[..., Any]:
    """Import what a dotted path names; `key` is the group that it is given in, such as ``model``.

    A file in the working directory counts, after everything that is installed: the directory may be a run folder from
    somewhere else, so it goes on the path for what the user named and is nowhere else, and last.

    Raises
    ------
    UserError
        If it cannot be imported or is not callable.
    """
    try:
        found = pydoc.locate(target)
        if found is None and (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # for good: the user's code, and workers that it is sent to, may import more later
            found = pydoc.locate(target)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"{key}._target_={target} cannot be imported: {error.value}") from error
    if not callable(found):
        raise UserError(f"{key}._target_={target} names nothing that can be called; is its package installed?")
    return found


def call(key: str, target: str, arguments: Mapping[str, Any]) -> Any:
    """Call what a dotted path names.

    Raises
    ------
    UserError
        If the arguments do not fit, or the user's code raises.
    """
    found = locate(key, target)
    try:
        return found(**arguments)
    except UserError:
        raise
    except Exception as error:  # whatever a user's code raises
        place = users_line(error)
        if isinstance(error, TypeError) and not place:
            raise UserError(f"{key}._target_={target}: {error}; set its arguments as {key}.NAME=…") from error
        where = f" at {place}" if place else ""
        what = f"{type(error).__name__}: {error}{where}"
        raise UserError(f"{key}._target_={target} raises {what}; mend it or its arguments {key}.NAME=…") from error
