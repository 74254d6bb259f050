"""Which samples a step sees, and how."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralmech.data.augment import Augment
from neuralmech.data.dataset import Dataset, in_memory
from neuralmech.data.options import AugmentOptions
from neuralmech.data.order import CPU, Order, generator, moved
from neuralmech.data.parts import Samples
from neuralmech.data.stream import Stream
from neuralmech.losses import counts

STREAM = 1  # keeps the random numbers of label noise apart
ITEMS = 3  # and those that items draw


class Batches:
    """Batch of a step, a function of (seed, step) alone: each epoch is a fresh permutation without its remainder.

    With `label_noise` that share of each batch's labels is drawn anew out of the classes, differently at every step,
    so that the gradient never dies out. Samples that are streamed are augmented and normalised where the others
    are, on the device, so that both give the same numbers.

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
        self, data: Dataset, batch_size: int, seed: int, label_noise: float = 0.0, augment: AugmentOptions | None = None
    ) -> None:
        train, place = data.train, data.place
        resident = isinstance(train, Samples) and not place.streamed
        order = Order(len(train), batch_size, seed, place.device if resident else CPU)
        self.per_epoch = order.per_epoch
        self._is_whole = batch_size == len(train)
        self._order, self._train = order, train
        key = lambda step: (seed, step // order.per_epoch, ITEMS)  # noqa: E731
        self._stream = None if resident else Stream(train, order, place.device, place.workers, key)
        self._inputs, self._device, self._classes = data.inputs, place.device, data.classes
        self._seed, self._label_noise = seed, label_noise
        self._augment = None
        if augment is not None and augment != AugmentOptions():
            self._augment = Augment(augment, order, batch_size, seed, data.shape, place.device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the step's batch, on the run's device."""
        x, y = self._stored(step)
        if self._augment:
            x = self._augment(x, step)
        return self._inputs(x), self._resampled(y, step) if self._label_noise else y

    def samples(self, step: int) -> Tensor:
        """Numbers of the step's samples in the training part."""
        return self._order(step)

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
        chosen = self._order(step)
        return self._train.x[chosen], self._train.y[chosen]

    def _resampled(self, y: Tensor, step: int) -> Tensor:
        """Labels of which a share is drawn anew, afresh at every step; those that do not count never count."""
        source = generator(self._seed, step, STREAM)
        drawn = torch.randint(self._classes, y.shape, generator=source)
        redrawn = torch.rand(y.shape, generator=source) < self._label_noise
        return torch.where(moved(redrawn, self._device) & counts(y), moved(drawn, self._device), y)
