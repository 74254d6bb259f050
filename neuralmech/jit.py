"""Functions compiled by numba, kept on disk where there is a folder for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

# Sums may be reordered for vector units; NaN and infinity keep their meaning.
REORDERED = frozenset({"reassoc", "contract", "nsz", "arcp"})
# x·y + z may be rounded once, as C++ compilers have it; nothing else.
CONTRACTED = frozenset({"contract"})
EXACT: frozenset[str] = frozenset()

# All files with compiled functions, which call each other's.
SOURCES = ("jit.py", "record/chunks.py", *(f"symmetry/{n}.py" for n in ("compiled", "one_pass_kernels", "sums")))


def jit(math: frozenset[str], *, nogil: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function at its first call; `math` is the freedom that floating-point operations have."""

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            made = numba.njit(fastmath=set(math), cache=True, nogil=nogil)(function)
        except RuntimeError:  # no folder to keep compiled code in
            return numba.njit(fastmath=set(math), nogil=nogil)(function)
        made._cache._cache_file._source_stamp = _stamp()  # pyright: ignore
        return made

    return compiled


@cache
def _stamp() -> tuple[tuple[float, int], ...]:
    """What tells whether compiled code on the disk is of these sources.

    numba looks at the file of a function only, and would go on with an old version of what it calls.
    """
    found = ((Path(__file__).parent / name).stat() for name in SOURCES)
    return tuple((file.st_mtime, file.st_size) for file in found)
