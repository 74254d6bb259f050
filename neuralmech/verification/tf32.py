"""TF32, the arithmetic of NVIDIA's matrix units on float32, where there are no such units."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

HALF_A_STEP = 0x1000  # of the 13 bits that TF32 has not, in the bits of a float32
KEPT_BITS = ~0x1FFF

# Where an operation has what the units round. What is added to a product (the bias, C in AB + C) is not rounded, and
# products with a vector (mv, dot) do not run on the units.
OPERANDS = {
    "mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "addbmm": (1, 2), "baddbmm": (1, 2),
    "convolution": (0, 1), "convolution_backward": (0, 1, 2),
}  # fmt: skip


def round_to_tf32(x: Float32[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    r"""Round float32 to a mantissa of 10 bits, to nearest, ties away from zero.

    That is |x̂ − x| ≤ 2⁻¹¹ |x| for normal x, as NVIDIA's instruction ``cvt.rna.tf32.f32`` does (PTX ISA, cvt). cuBLAS
    rounds so before it multiplies; a kernel that leaves it to the units, which drop the bits, errs up to twice as much.
    Sign and exponents are those of float32, subnormals included (their steps are 2⁻¹³⁶); what rounds past the largest
    number is infinite; NaN stays NaN.

    Examples
    --------
    >>> round_to_tf32(torch.tensor([1 + 2**-11, 1 + 2**-12, -1 - 2**-11])).mul(1024).tolist()
    [1025.0, 1024.0, -1025.0]
    """
    rounded = (x.view(torch.int32) + HALF_A_STEP) & KEPT_BITS
    return torch.where(x.isfinite(), rounded.view(torch.float32), x)


class Tf32Products(TorchDispatchMode):
    """Inside, float32 matrix products and convolutions round their operands to TF32, and add up in float32.

    Below autograd, hence in every derivative too: a derivative of a product is made of products, whose operands are
    rounded in their turn. Fused operations that hide their products (``nn.Bilinear``, recurrent layers) stay float32.

    Examples
    --------
    >>> x = torch.tensor([[1 + 2**-12]])
    >>> with Tf32Products():
    ...     print(x @ x == 1)
    tensor([[True]])
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run an operation on rounded operands, if it is a product of float32."""
        name = func.overloadpacket.__name__.rstrip("_")
        places = OPERANDS.get(name, ())
        if not places or any(args[i].dtype != torch.float32 for i in places):
            return func(*args, **(kwargs or {}))
        rounded = [round_to_tf32(x) if i in places else x for i, x in enumerate(args)]
        if name == "convolution_backward":
            return _backward(func, rounded, args[0])
        return func(*rounded, **(kwargs or {}))


def _backward(func: Any, rounded: list[Any], slope: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of a convolution; the bias's is a plain sum and takes no products."""
    wanted = rounded[-1]
    inputs, weight, _ = func(*rounded[:-1], [*wanted[:2], False])
    bias = slope.sum([d for d in range(slope.ndim) if d != 1]) if wanted[2] else None
    return inputs, weight, bias
