"""Code of the user's own, named by a ``_target_`` on the command line or in a config file, never by a record."""

from __future__ import annotations

import importlib.machinery
import pydoc
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from neuralmech.errors import UserError, users_line
from neuralmech.words import given_in, short


def locate(key: str, target: str) -> Callable[..., Any]:
    """Import what a dotted path names; `key` is the group that it is given in, such as ``model``.

    A file in the working directory counts, after everything that is installed: the directory may be a run folder from
    somewhere else, so it goes on the path for what the user named and is nowhere else, and last. What libraries
    import, and do without if it is not there, is not looked for in it.

    Raises
    ------
    UserError
        If it cannot be imported or is not callable.
    """
    try:
        _guard(here := str(given_in()))
        found = pydoc.locate(target)
        if found is None and here not in sys.path:
            sys.path.append(here)  # for good: the user's code, and workers that it is sent to, may import more later
            found = pydoc.locate(target)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"{key}._target_={target} cannot be imported: {error.value}") from error
    if not callable(found):
        raise UserError(f"{key}._target_={target} names nothing that can be called; {_hint(target)}")
    return found


def _hint(target: str) -> str:
    """Why there is nothing of a name; the user's file may be hidden behind a module that is installed."""
    top = target.partition(".")[0]
    there = getattr(sys.modules.get(top), "__file__", None)
    own = [p for p in (given_in() / f"{top}.py", given_in() / top / "__init__.py") if p.is_file()]
    if there and own and Path(there).resolve() != own[0].resolve():
        return f"{short(own[0])} has the name of a module that is installed, {there}; give it another"
    return "is its package installed?"


def _guard(folder: str) -> None:
    """Let modules of a folder be found by everybody but libraries, as long as Python looks for them there."""
    if folder in _guarded:
        return
    _guarded.add(folder)
    sys.path_hooks.insert(0, _finder)
    sys.path_importer_cache.pop(folder, None)


_guarded: set[str] = set()


def _finder(path: str) -> Any:
    """Finder of a guarded folder on the path."""
    if path not in _guarded:
        raise ImportError(f"{path} is not guarded")
    return _Guarded(path, *_LOADERS)


_LOADERS = (
    (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
    (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES),
    (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
)


class _Guarded(importlib.machinery.FileFinder):
    """Finds what a folder holds, unless a library imports it."""

    def find_spec(self, fullname: str, target: Any = None) -> Any:
        """Spec of a module."""
        return None if _is_librarys_import() else super().find_spec(fullname, target)


def _is_librarys_import() -> bool:
    """Whether the code that imports is of an installed package; what locates or unpickles does so for the user."""
    frame = sys._getframe(2)
    while frame is not None:
        name, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        if file.startswith("<") or name.partition(".")[0] in ("importlib", "pydoc", "pickle", "multiprocessing"):
            frame = frame.f_back
            continue
        return "/site-packages/" in file or "/dist-packages/" in file
    return False


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
