"""Copies of a model that compute in float64 throughout, whatever its code casts to."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

CONDITIONS = ("exact", "float64", "own")
NO_EPSILON = 1e-24  # what a norm's eps is set to, to tell its effect from a false claim
NARROW = (torch.float32, torch.float16, torch.bfloat16)


def condition(model: nn.Module, name: str) -> nn.Module:
    """Return a copy in training mode: ``exact`` and ``float64`` in float64, ``exact`` without norms' eps."""
    twin = copy.deepcopy(model).train()
    if name == "own":
        return twin
    for module in twin.modules() if name == "exact" else ():
        for attribute in ("eps", "variance_epsilon"):
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, NO_EPSILON)
    return twin.double()


class Float64(TorchDispatchMode):
    """Every operation that asks for a narrower floating-point result gives float64.

    Many models cast inside whatever their parameters are (the norms of T5 and Llama compute in float32, and
    rotary tables are made in it), and a cast rounds at 1e-7: it would hide whether a claim is exact.

    Attributes
    ----------
    refused
        Number of float64 tensors that were to be cast to a narrower type.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run the operation with float64 in place of a narrower ``dtype``."""
        options = dict(kwargs or {})
        if options.get("dtype") in NARROW:
            options["dtype"] = torch.float64
            self.refused += bool(args) and isinstance(args[0], Tensor) and args[0].dtype == torch.float64
        return func(*args, **options)


@contextmanager
def float64_throughout(mode: Float64) -> Iterator[None]:
    """Compute in float64 inside: casts to less and new tensors without a type included."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with mode:
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by plain operations: the fused kernels have no second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        yield
