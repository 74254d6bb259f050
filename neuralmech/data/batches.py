"""Which samples a step sees, and how: their order, label noise, random crops and flips."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from neuralmech.data.dataset import Dataset, in_memory
from neuralmech.data.draws import CPU, Order, generator, moved
from neuralmech.data.options import AugmentOptions
from neuralmech.data.parts import Samples
from neuralmech.data.stream import Stream
from neuralmech.errors import UserError
from neuralmech.losses import counts

# Keep the random numbers of label noise, of crops and flips, and of items apart from those of the order.
NOISE, CROPS, ITEMS = 1, 2, 3
WHOLE = slice(None)


class Batches:
    """Batch of a step, a function of (seed, step) alone: each epoch is a fresh permutation without its remainder.

    With `label_noise` that share of each batch's labels is drawn anew out of the classes, differently at every step,
    so that the gradient never dies out. Samples that are streamed are augmented and normalised where the others
    are, on the device, so that both give the same numbers. A process that has only a `share` of each batch gets those
    samples of it, as they are in the whole.

    Examples
    --------
    >>> x = torch.arange(10)
    >>> batches = Batches(Dataset(Samples(x, x), Samples(x, x), classes=10), batch_size=5, seed=0)
    >>> sorted(torch.cat([batches(0)[0], batches(1)[0]]).tolist()) == x.tolist()
    True
    >>> torch.equal(batches(0)[0], batches(7)[0])
    False
    """

    def __init__(
        self, data: Dataset, batch_size: int, seed: int, label_noise: float = 0.0,
        augment: AugmentOptions | None = None, share: slice = WHOLE,
    ) -> None:  # fmt: skip
        train, place = data.train, data.place
        resident = isinstance(train, Samples) and not place.streamed
        order = Order(len(train), batch_size, seed, place.device if resident else CPU)
        self.per_epoch = order.per_epoch
        self._is_whole = batch_size == len(train)
        self._order, self._train, self._share, self._batch_size = order, train, share, batch_size
        key = lambda step: (seed, step // order.per_epoch, ITEMS)  # noqa: E731
        self._stream = None if resident else Stream(train, self.samples, place.device, place.workers, key)
        self._inputs, self._device, self._classes = data.inputs, place.device, data.classes
        self._seed, self._label_noise = seed, label_noise
        self._augment = None
        if augment is not None and augment != AugmentOptions():
            self._augment = Augment(augment, order, batch_size, seed, data.shape, place.device, share)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the step's batch, on the run's device."""
        x, y = self._stored(step)
        if self._augment:
            x = self._augment(x, step)
        return self._inputs(x), self._resampled(y, step) if self._label_noise else y

    def samples(self, step: int) -> Int64[Tensor, " batch"]:
        """Numbers of the step's samples in the training part."""
        return self._order(step)[self._share]

    @property
    def are_whole(self) -> bool:
        """Whether every batch is the whole set, as it is; reads all items of such a set, if it is streamed."""
        if not self._is_whole or self._label_noise or self._augment is not None:
            return False
        return in_memory(self._train) is not None

    def close(self) -> None:
        """End the processes that read ahead."""
        if self._stream:
            self._stream.close()

    def _stored(self, step: int) -> tuple[Tensor, Tensor]:
        if self._stream:
            return self._stream(step)
        assert isinstance(self._train, Samples)
        chosen = self.samples(step)
        return self._train.x[chosen], self._train.y[chosen]

    def _resampled(self, y: Tensor, step: int) -> Tensor:
        """Labels of which a share is drawn anew, afresh at every step; those that do not count never count."""
        source = generator(self._seed, step, NOISE)
        shape = self._batch_size, *y.shape[1:]
        drawn = torch.randint(self._classes, shape, generator=source)[self._share]
        redrawn = torch.rand(shape, generator=source)[self._share] < self._label_noise
        return torch.where(moved(redrawn, self._device) & counts(y), moved(drawn, self._device), y)


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
        device: torch.device, share: slice = WHOLE,
    ) -> None:  # fmt: skip
        if len(shape) != 3:
            raise UserError(f"data.augment is for images, data has shape {shape}; leave it out")
        if options.crop >= min(shape[1:]):
            raise UserError(f"data.augment.crop={options.crop} is as large as the images {shape}; 4 is usual for 32×32")
        self._options, self._per_epoch, self._batch_size = options, order.per_epoch, batch_size
        self._seed, self._device, self._share = seed, device, share
        self._draws = lru_cache(maxsize=1)(self._draw)

    def __call__(self, x: Shaped[Tensor, "batch channels height width"], step: int) -> Tensor:
        """The step's batch (samples, channels, height, width), augmented."""
        epoch, position = divmod(step, self._per_epoch)
        drawn = self._draws(epoch)[:, position * self._batch_size :][:, : self._batch_size]
        down, right, flip = drawn[:, self._share]
        return crop_and_flip(x, down, right, flip.bool(), self._options.crop)

    def _draw(self, epoch: int) -> Tensor:
        """Offsets down and to the right, and 1 where a sample is flipped: (3, samples of the epoch)."""
        source, count = generator(self._seed, epoch, CROPS), self._per_epoch * self._batch_size
        offsets = torch.randint(2 * self._options.crop + 1, (2, count), generator=source)
        flips = torch.randint(2, (1, count), generator=source) * self._options.flip
        return moved(torch.cat([offsets, flips]), self._device)


def crop_and_flip(
    x: Shaped[Tensor, "batch channels height width"],
    down: Int64[Tensor, " batch"],
    right: Int64[Tensor, " batch"],
    flip: Bool[Tensor, " batch"],
    padding: int,
) -> Shaped[Tensor, "batch channels height width"]:
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
