"""Functions compiled by numba, kept on disk where there is a folder for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Sums may be reordered for vector units; NaN and infinity keep their meaning.
REORDERED = frozenset({"reassoc", "contract", "nsz", "arcp"})
# x·y + z may be rounded once, as C++ compilers have it; nothing else.
CONTRACTED = frozenset({"contract"})
EXACT: frozenset[str] = frozenset()


def jit(math: frozenset[str], *, nogil: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function at its first call; `math` is the freedom that floating-point operations have."""

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(fastmath=set(math), cache=True, nogil=nogil)(function)
        except RuntimeError:  # no folder to keep compiled code in
            return numba.njit(fastmath=set(math), nogil=nogil)(function)

    return compiled
