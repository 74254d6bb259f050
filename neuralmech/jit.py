"""Functions compiled by numba, kept on disk where there is a folder for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from pickle import PickleError
from typing import Any

import numba

# Sums may be reordered for vector units; NaN and infinity keep their meaning.
REORDERED = frozenset({"reassoc", "contract", "nsz", "arcp"})
# x·y + z may be rounded once, as C++ compilers have it; nothing else.
CONTRACTED = frozenset({"contract"})
EXACT: frozenset[str] = frozenset()

# All files with compiled functions, which call each other's.
SOURCES = ("jit.py", *(f"charges/{n}.py" for n in ("cpu_kernels", "cpu_rows", "cpu_adam_kernels")))


def jit(math: frozenset[str], *, nogil: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function at its first call; `math` is the freedom that floating-point operations have.

    Division by zero gives infinity or NaN: Python's check of every divisor would keep loops from vector units.
    """

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            made = numba.njit(fastmath=set(math), error_model="numpy", cache=True, nogil=nogil)(function)
        except (RuntimeError, OSError):  # no folder to keep compiled code in
            made = numba.njit(fastmath=set(math), error_model="numpy", nogil=nogil)(function)
            made._cache = _Forgiving(made._cache)  # pyright: ignore
            return made
        made._cache._cache_file._source_stamp = _stamp()  # pyright: ignore
        made._cache = _Forgiving(made._cache)  # pyright: ignore
        return made

    return compiled


class _Forgiving:
    """A cache of numba's that is done without where its files cannot be read or written."""

    def __init__(self, kept: Any) -> None:
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    def load_overload(self, *arguments: Any) -> Any:
        """Compiled code, None if there is none that can be read."""
        found = self._tried(self._kept.load_overload, *arguments)
        if found is None:
            _say_once()
        return found

    def save_overload(self, *arguments: Any) -> None:
        """Keep compiled code if there is a place for it."""
        self._tried(self._kept.save_overload, *arguments)

    def _tried(self, act: Callable[..., Any], *arguments: Any) -> Any:
        with suppress(OSError):  # not writable, full
            try:
                return act(*arguments)
            except _UNREADABLE:
                self._kept._cache_file.flush()  # or nothing could be kept there ever again
        return None


# What unpickling raises of a file that was cut short or overwritten, or that names a class of an earlier version.
_UNREADABLE = (EOFError, PickleError, ValueError, TypeError, AttributeError, ImportError, LookupError)


@cache
def _say_once() -> None:
    """Say why the first step takes long, the first time that a process compiles."""
    print("neuralmech: compiling the sums of charges for this processor, which is kept for later runs", file=sys.stderr)


@cache
def _stamp() -> tuple[tuple[float, int], ...]:
    """What tells whether compiled code on the disk is of these sources.

    numba looks at the file of a function only, and would go on with an old version of what it calls.
    """
    found = ((Path(__file__).parent / name).stat() for name in SOURCES)
    return tuple((file.st_mtime, file.st_size) for file in found)
