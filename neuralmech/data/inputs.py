"""Stored samples as a model takes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """Mean and standard deviation of each channel, on the scale where 255 is 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Inputs:
    """Turns a batch as stored into what the model takes: (pixel/255 − mean)/std of bytes, other numbers as they are.

    Parameters
    ----------
    pixels
        Needed for bytes (uint8) only.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, pixels: Pixels | None = None) -> None:
        self._dtype = dtype
        self._mean, self._std = (
            (torch.tensor(values, dtype=torch.float64, device=device) * 255).to(dtype).reshape(-1, 1, 1)
            for values in ((pixels.mean, pixels.std) if pixels else ((0.0,), (1.0,)))
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Real numbers in the model's precision, or tokens."""
        if x.dtype == torch.uint8:
            return (x - self._mean).div_(self._std)
        return x.to(self._dtype if x.is_floating_point() else torch.int64)


def measure(x: Tensor) -> Pixels:
    """Mean and standard deviation of each channel of images (samples, channels, height, width), of bytes.

    They come from counts of grey levels, so they depend neither on the order nor on the machine. A channel that is
    constant has its standard deviation set to one grey level.
    """
    levels = torch.arange(256, dtype=torch.float64)
    shares = [torch.bincount(x[:, c].flatten(), minlength=256).double() / x[:, c].numel() for c in range(x.shape[1])]
    mean = [float(share @ levels) for share in shares]
    std = [float((s @ (levels - m) ** 2).sqrt()) or 1.0 for s, m in zip(shares, mean, strict=True)]
    return Pixels(tuple(m / 255 for m in mean), tuple(s / 255 for s in std))
