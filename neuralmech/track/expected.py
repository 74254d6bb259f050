"""The expected drive at any batch size, from gradients of a whole and of its parts: M + T/B."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Drive = Callable[[Tensor], Float64[Tensor, " charges"]]  # gᵀSg of all charges
MeanAndNoise = tuple[Float64[Tensor, " charges"], Float64[Tensor, " charges"]]  # M and T


@torch.no_grad()
def expected(
    drive: Drive,
    whole: Callable[[], Float[Tensor, " parameters"]],
    size: int,
    parts: Iterable[Float[Tensor, " parameters"]],
    part: int,
) -> MeanAndNoise:
    r"""Mean M and noise T: the expected drive at batch size B is M + T/B.

    The gradient g of a batch that is drawn without replacement out of N samples has E[gᵀSg] = ḡᵀSḡ + τ(1/B − 1/N): if
    the loss is a mean over samples exactly, with τ the noise of single samples; if a norm over the batch couples them,
    to first order in 1/B. M and T are those that agree with the drives of both measured sizes, `size` and `part`, in
    expectation. Of two halves of S samples, where g = (g_A + g_B)/2, that is M = g_AᵀSg_B and
    T = S(g_A − g_B)ᵀS(g_A − g_B)/4.

    Parameters
    ----------
    drive
        See `Tracker.drive`.
    whole
        Gives the gradient of all samples, once the parts were gone through.
    size
        How many they are.
    parts
        Gradients of parts of them, in which no sample is preferred.
    part
        Samples of each part. A single part as large as the whole tells no noise.
    """
    found = [drive(gradient) for gradient in parts]
    of_whole = drive(whole())
    noise = torch.zeros_like(of_whole)
    if part < size:
        noise = (torch.stack(found).mean(dim=0) - of_whole) / (1 / part - 1 / size)
    return of_whole - noise / size, noise


@torch.no_grad()
def expected_of_halves(
    drive: Drive,
    whole: Float[Tensor, " parameters"],
    size: int,
    first: Float[Tensor, " parameters"],
    second: Float[Tensor, " parameters"],
) -> MeanAndNoise:
    r"""M and T from two halves that are independent, whose mean is that of the whole set: M = g_AᵀSg_B.

    T is what the drive of `whole`, the gradient of `size` samples, has beyond it. So M + T/B is the expected drive at
    B = `size` and for large B, whatever the batch's loss is a mean of.
    """
    mean = (drive(first + second) - drive(first - second)) / 4
    return mean, size * (drive(whole) - mean)
