"""What a machine has for work that is done side by side."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

THREADS = "OMP_NUM_THREADS"  # PyTorch, MKL, OpenBLAS and OpenMP itself read it


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def python_calling(function: Callable[..., None], *numbers: int) -> list[str]:
    """Command of a process that calls a function of a module, and imports from where this one does.

    Unlike those of `multiprocessing` it needs no look at the program that it is begun by.
    """
    call = f"{function.__name__}({', '.join(map(str, numbers))})"
    code = f"import sys; sys.path[:] = sys.argv[1:]; from {function.__module__} import {function.__name__}; {call}"
    return [sys.executable, "-c", code, *sys.path]
