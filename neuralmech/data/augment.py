"""Random crops and flips of a whole batch of images at once, on the device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from neuralmech.data.options import AugmentOptions
from neuralmech.data.order import Order, generator, moved
from neuralmech.errors import UserError

STREAM = 2  # keeps these random numbers apart from those of the order and of label noise


class Augment:
    """Crop and flip of each sample of a batch, a function of (seed, epoch, position in the epoch).

    The random numbers of an epoch are drawn on the CPU and moved at its start, so that a step waits for nothing.

    Raises
    ------
    UserError
        If the samples are no images larger than the crop.
    """

    def __init__(
        self, options: AugmentOptions, order: Order, batch_size: int, seed: int, shape: tuple[int, ...],
        device: torch.device,
    ) -> None:  # fmt: skip
        if len(shape) != 3:
            raise UserError(f"data.augment is for images, data has shape {shape}; leave it out")
        if options.crop >= min(shape[1:]):
            raise UserError(f"data.augment.crop={options.crop} is as large as the images {shape}; 4 is usual for 32×32")
        self._options, self._per_epoch, self._batch_size = options, order.per_epoch, batch_size
        self._seed, self._device = seed, device
        self._draws = lru_cache(maxsize=1)(self._draw)

    def __call__(self, x: Tensor, step: int) -> Tensor:
        """The step's batch (samples, channels, height, width), augmented."""
        epoch, position = divmod(step, self._per_epoch)
        down, right, flip = self._draws(epoch)[:, position * self._batch_size :][:, : len(x)]
        return crop_and_flip(x, down, right, flip.bool(), self._options.crop)

    def _draw(self, epoch: int) -> Tensor:
        """Offsets down and to the right, and 1 where a sample is flipped: (3, samples of the epoch)."""
        source, count = generator(self._seed, epoch, STREAM), self._per_epoch * self._batch_size
        offsets = torch.randint(2 * self._options.crop + 1, (2, count), generator=source)
        flips = torch.randint(2, (1, count), generator=source) * self._options.flip
        return moved(torch.cat([offsets, flips]), self._device)


def crop_and_flip(x: Tensor, down: Tensor, right: Tensor, flip: Tensor, padding: int) -> Tensor:
    """Crop each image, padded by zeros, at its own offset to its old size; then flip it left to right where `flip`.

    Parameters
    ----------
    x
        (samples, channels, height, width)
    down, right
        (samples,), from 0 to 2·padding; `padding` leaves an image where it is.
    flip
        (samples,), Boolean.
    """
    samples, channels, height, width = x.shape
    padded = F.pad(x, [padding] * 4)
    across = torch.arange(width, device=x.device)
    rows = down[:, None] + torch.arange(height, device=x.device)
    columns = right[:, None] + torch.where(flip[:, None], across.flip(0), across)
    pixels = (rows[:, :, None] * padded.shape[3] + columns[:, None]).view(samples, 1, -1)
    return padded.flatten(2).gather(2, pixels.expand(-1, channels, -1)).view(x.shape)
