"""A data set: its parts, its samples as a model takes them, and where a run keeps them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from neuralmech.data.draws import CPU
from neuralmech.data.options import DataOptions
from neuralmech.data.parts import Items, ItemsWithDraws, Part, Samples, Wanted
from neuralmech.data.stream import read
from neuralmech.errors import UserError

HELD_OUT = (0, 4)  # keeps the random numbers of its items apart from those of the training part
SHARE = 0.5  # of the memory, at most, that data may take before they are streamed


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


def measure(x: Shaped[Tensor, "samples ..."]) -> Pixels:
    """Mean and standard deviation of each channel of images (samples, channels, height, width), of bytes.

    They come from counts of grey levels, so they depend neither on the order nor on the machine. A channel that is
    constant has its standard deviation set to one grey level.
    """
    levels = torch.arange(256, dtype=torch.float64)
    shares = [torch.bincount(x[:, c].flatten(), minlength=256).double() / x[:, c].numel() for c in range(x.shape[1])]
    mean = [float(share @ levels) for share in shares]
    std = [float((s @ (levels - m) ** 2).sqrt()) or 1.0 for s, m in zip(shares, mean, strict=True)]
    return Pixels(tuple(m / 255 for m in mean), tuple(s / 255 for s in std))


@dataclass(frozen=True)
class Place:
    """Device and precision of what the model gets; `streamed`: samples stay where they are until wanted."""

    device: torch.device = CPU
    dtype: torch.dtype = torch.float64
    streamed: bool = False
    workers: int = 0


@dataclass(frozen=True)
class Dataset:
    """Training and held-out part.

    Inputs are real numbers or images of bytes (samples, …) with labels (samples,), or tokens (samples, tokens) with
    one target for each; `classes` is then the size of the vocabulary. Targets that are no labels are soft ones or
    numbers; `classes` is how many each prediction has. `pixels` is needed for bytes.
    """

    train: Part
    test: Part
    classes: int
    pixels: Pixels | None = None
    place: Place = field(default_factory=Place)
    has_labels: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self._first(1).shape[1:])

    @property
    def has_tokens(self) -> bool:
        """Whether inputs are indices of tokens, not real numbers or bytes of images."""
        first = self._first(1)
        return not first.is_floating_point() and first.dtype != torch.uint8

    @property
    def inputs(self) -> Inputs:
        """What turns stored samples into what the model takes."""
        return Inputs(self.place.device, self.place.dtype, self.pixels)

    def example(self, dtype: torch.dtype) -> Shaped[Tensor, "batch ..."]:
        """Two training samples as the model takes them, on the CPU."""
        return Inputs(CPU, dtype, self.pixels)(self._first(2))

    def example_targets(self) -> Shaped[Tensor, "batch ..."]:
        """Targets of these two; the largest label is among them, so that what holds for them holds for all."""
        y = self.train[np.arange(2)][1].clone()
        if self.has_labels:
            known = [part.y for part in (self.train, self.test) if isinstance(part, Samples)]
            y.view(-1)[0] = max(int(t.max()) for t in known) if len(known) == 2 else self.classes - 1
        return y

    def to(self, place: Place) -> Dataset:
        """Keep the samples where `place` says, in memory unless it is streamed or its items are random."""
        home = CPU if place.streamed else place.device
        parts: list[Part] = []
        for part in (self.train, self.test):
            kept = None if place.streamed and isinstance(part, Items) else in_memory(part, place.workers)
            parts.append(part if kept is None else kept.to(home, place.dtype))
        return replace(self, train=parts[0], test=parts[1], place=place)

    def held_out(
        self, batch: int
    ) -> Generator[tuple[Shaped[Tensor, "batch ..."], Shaped[Tensor, "batch ..."]], None, None]:
        """Batches of the held-out part as the model takes them, in order, on the device."""
        place, inputs = self.place, self.inputs
        if isinstance(self.test, Samples) and not place.streamed:
            for x, y in zip(self.test.x.split(batch), self.test.y.split(batch), strict=True):
                yield inputs(x), y
            return
        workers = place.workers if isinstance(self.test, Items) else 0  # those in memory lie side by side
        with closing(read(self.test, _chunks(len(self.test), batch), place.device, workers)) as stored:
            for x, y in stored:
                yield inputs(x), y

    def check_batch(self, batch_size: int) -> None:
        """Raise a `UserError` if the training part holds fewer samples than a batch."""
        if batch_size > len(self.train):
            raise UserError(
                f"data.batch_size={batch_size} is larger than the training data ({len(self.train)} samples); "
                "use a smaller batch"
            )

    def _first(self, count: int) -> Tensor:
        return self.train[np.arange(count)][0]


def in_memory(part: Part, workers: int = 0) -> Samples | None:
    """All samples of a part, read by so many processes if they are not in memory; None if any is drawn at random."""
    if isinstance(part, Samples):
        return part
    start, kept = 0, None
    with closing(read(ItemsWithDraws(part), _chunks(len(part), 256), CPU, workers)) as batches:
        for x, y, drew in batches:
            if drew:
                return None
            kept = kept or Samples(x.new_empty(len(part), *x.shape[1:]), y.new_empty(len(part), *y.shape[1:]))
            kept.x[start : start + len(x)], kept.y[start : start + len(x)] = x, y
            start += len(x)
    return kept


def _chunks(samples: int, size: int) -> Iterator[Wanted]:
    """All of a part in order; what they draw at random is the same for every run, so that evaluations compare."""
    return (Wanted(np.arange(start, min(start + size, samples)), HELD_OUT) for start in range(0, samples, size))


def split(
    x: Shaped[Tensor, "samples ..."],
    y: Shaped[Tensor, "samples ..."],
    test_fraction: float,
    classes: int,
    seed: int = 0,
) -> Dataset:
    """Split off a held-out part, the same one for every seed of a run so that runs compare."""
    train, test = held_out(len(x), test_fraction, seed)
    return Dataset(Samples(x[train], y[train]), Samples(x[test], y[test]), classes)


def held_out(
    samples: int, test_fraction: float, seed: int = 0
) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " test"]]:
    """Numbers of the samples of the training part and of the held-out one, in an order drawn by `seed`."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    held = round(samples * test_fraction)
    if not 0 < held < samples:
        raise UserError(f"data.test_fraction={test_fraction} holds out {held} of {samples} samples; change it")
    return order[held:], order[:held]


def settle(data: Dataset, options: DataOptions, device: torch.device, dtype: torch.dtype) -> Dataset:
    """Put the samples on the device, or leave them to be streamed, as ``data.residency`` says.

    Items that draw random numbers are read anew in every epoch, and so cannot be kept.

    Raises
    ------
    UserError
        If they were to be.
    """
    streamed = options.residency == "loader" or (options.residency == "auto" and not fits(data, device))
    settled = data.to(Place(device, dtype, streamed, options.workers))
    if options.residency == "device" and any(isinstance(part, Items) for part in (settled.train, settled.test)):
        raise UserError("data.residency=device: items of the data set are drawn at random; use auto or loader")
    return settled


def fits(data: Dataset, device: torch.device) -> bool:
    """Whether the samples take at most half of the free memory of a GPU.

    Those that are read one by one must also fit into half of the computer's memory.
    """
    size = data.train.size + data.test.size
    if device.type == "cuda" and size > SHARE * torch.cuda.mem_get_info(device)[0]:
        return False
    is_read = isinstance(data.train, Items) or isinstance(data.test, Items)
    return not is_read or size <= SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
