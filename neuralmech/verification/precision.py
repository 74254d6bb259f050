"""The arithmetic that a model computes in: float64 whatever its code casts to, float32, TF32, autocast."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from neuralmech.verification.tf32 import Tf32Products

NARROW = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Precision:
    """One way to compute.

    Attributes
    ----------
    dtype
        Of parameters and inputs.
    cause
        What breaks a symmetry there and not in float64.
    autocast
        What `torch.autocast` rounds the operands of matrix products and convolutions to.
    tf32
        Whether they are rounded to TF32 (10 bits of mantissa, as float16 has); None: as torch is set.
    loss_scale
        Factor of the loss in the backward pass, against underflow; halved until no gradient overflows.
    """

    dtype: torch.dtype
    cause: str
    autocast: torch.dtype | None = None
    tf32: bool | None = False
    loss_scale: float = 1.0

    def products(self, device: torch.device) -> AbstractContextManager:
        """Context of forward passes, for matrix products in the autocast type."""
        return torch.autocast(device.type, self.autocast) if self.autocast else nullcontext()

    @contextmanager
    def matrix_units(self, device: torch.device) -> Iterator[None]:
        """Context of forward and backward passes: products of float32 are TF32, or they are not."""
        if self.tf32 and not has_tf32_units(device):
            with Tf32Products():
                yield
            return
        if device.type != "cuda" or self.tf32 is None:
            yield
            return
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before

    def cause_on(self, device: torch.device) -> str:
        """`cause`, and whether the device only emulates it."""
        return f"{self.cause} (emulated)" if self.tf32 and not has_tf32_units(device) else self.cause


def has_tf32_units(device: torch.device) -> bool:
    """Whether a device multiplies in TF32 itself: NVIDIA's do since Ampere."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_tf32_supported()


PRECISIONS = {
    "fp64": Precision(torch.float64, "a cast to less than float64 inside the model"),
    "fp32": Precision(torch.float32, "float32 rounding"),
    "tf32": Precision(torch.float32, "TF32 products", tf32=True),
    "bf16": Precision(torch.float32, "bfloat16 autocast", torch.bfloat16),
    "fp16": Precision(torch.float32, "float16 autocast", torch.float16, loss_scale=2.0**16),
}


def own_precision(model: nn.Module) -> Precision:
    """Precision of a model as it is: its first parameter's, with TF32 where torch is set to it."""
    first = next(iter(model.parameters()))
    if first.dtype == torch.float64:
        return PRECISIONS["fp64"]
    rounded = has_tf32_units(first.device) and (
        torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    )
    if first.dtype == torch.float32 and rounded:
        return replace(PRECISIONS["tf32"], tf32=None)
    return Precision(first.dtype, f"{str(first.dtype).removeprefix('torch.')} rounding", tf32=None)


class Float64(TorchDispatchMode):
    """Every operation that asks for a narrower floating-point result gives float64.

    Many models cast inside whatever their parameters are (the norms of T5 and Llama compute in float32, and
    rotary tables are made in it), and a cast rounds at 1e-7: it would hide whether a claim is exact.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run the operation with float64 in place of a narrower ``dtype``."""
        options = dict(kwargs or {})
        if options.get("dtype") in NARROW:
            options["dtype"] = torch.float64
        return func(*args, **options)


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Compute in float64 inside: casts to less and new tensors without a type included."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Float64():
            yield
    finally:
        torch.set_default_dtype(before)


def lacks_type(error: RuntimeError) -> bool:
    """Whether an error says that an operation does not exist in the type that it is given."""
    return bool(re.search(r"Half|BFloat16|Float|Double|dtype|scalar type", str(error)))


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by plain operations: the fused kernels have no second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        yield
