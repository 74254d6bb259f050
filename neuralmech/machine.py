"""What a machine has for work that is done side by side."""

from __future__ import annotations

import os

THREADS = "OMP_NUM_THREADS"  # PyTorch, MKL, OpenBLAS and OpenMP itself read it


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
