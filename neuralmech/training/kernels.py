"""Which kernels PyTorch may use, and what it means when it has none or no memory for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from neuralmech.errors import RunError, users_line


def choose_kernels(*, deterministic: bool) -> None:
    """With `deterministic`, PyTorch raises where an operation has no kernel that always adds in the same order."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    wanted = 2 if deterministic else 0  # 1, which somebody's code may have chosen, only warns
    if torch.get_deterministic_debug_mode() != wanted:  # the call imports torch's compiler: 0.4 s
        torch.use_deterministic_algorithms(deterministic)
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010  (typed nowhere; we read none)


@contextmanager
def kernel_errors() -> Iterator[None]:
    """Say in one line what a GPU without memory, or an operation without deterministic kernel, asks for.

    Raises
    ------
    RunError
        In their place.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        remedy = "take batches in parts (train.accumulate=2), a smaller data.batch_size, or train.precision=bf16"
        raise RunError(f"the GPU's memory is full; {remedy}") from error
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        what, where = str(error).split(" does not")[0], users_line(error)
        at = f" at {where}" if where else ""
        raise RunError(f"{what}{at} has no deterministic kernel; use train.deterministic=false") from error
