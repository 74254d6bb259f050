"""Batches that worker processes read ahead, and that reach the device without being waited for."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import count
from pickle import PicklingError
from typing import Any

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Indexed

from neuralmech.data.parts import ItemsWithDraws, Part, Wanted
from neuralmech.data.readers import Readers, attend, later
from neuralmech.errors import RunError, UserError

AHEAD = 4  # batches that each worker reads ahead


class Stream:
    """Batch of a step as stored, on the device; reads ahead from the last step asked for.

    Parameters
    ----------
    indices
        Samples of a step.
    key
        What the random numbers of a step's samples depend on, besides their own.
    """

    def __init__(
        self, part: Part, indices: Callable[[int], Int64[Tensor, " batch"]], device: torch.device, workers: int,
        key: Callable[[int], tuple[int, ...]] = lambda _: (0,),
    ) -> None:  # fmt: skip
        self._part, self._device, self._workers = part, device, workers
        self._wanted = lambda step: Wanted(indices(step).numpy(), key(step))
        self._ahead: Generator[tuple[Tensor, ...], None, None] | None = None
        self._next = 0
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the step's batch."""
        if self._last is not None and step == self._next - 1:
            return self._last
        if self._ahead is None or step != self._next:
            self.close()
            wanted = map(self._wanted, count(step))
            self._ahead = read(self._part, wanted, self._device, self._workers)
        x, y = next(self._ahead)
        self._last, self._next = (x, y), step + 1
        return self._last

    def close(self) -> None:
        """End the workers; the next batch asked for starts them again."""
        if self._ahead is not None:
            self._ahead.close()
        self._ahead, self._last = None, None


def read(
    part: Part | ItemsWithDraws, wanted: Iterable[Wanted], device: torch.device, workers: int
) -> Generator[tuple[Shaped[Tensor, "batch ..."], ...], None, None]:
    """Yield batches as stored, on the device, read by so many processes (0: by this one).

    Whoever does not take all of them closes it, which ends the workers. Where processes may not have children, this
    one reads.

    Raises
    ------
    UserError
        If the data cannot be sent to the workers, or an item cannot be read.
    RunError
        If a worker is killed.
    """
    if multiprocessing.current_process().daemon:
        workers = 0
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": device.type == "cuda"}
    readers = Readers() if workers else None
    if readers:
        options |= {"multiprocessing_context": readers, "prefetch_factor": AHEAD, "worker_init_fn": attend}
    # An own generator: the loader would draw from the one that dropout draws from.
    source = _Answering(part) if readers else part
    loader = DataLoader(source, batch_size=None, sampler=_Sampler(wanted), generator=torch.Generator(), **options)
    batches = None
    try:
        with later():  # a loader that is half made leaves its workers alone
            batches = _started(loader, workers)
        for batch in batches:
            if isinstance(batch, _Refusal):
                raise batch.error
            yield tuple(numbers.to(device, non_blocking=True) for numbers in batch)
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        if "</torch_" in text or "shared memory" in text:
            raise UserError(f"data.workers={workers}: {text}; use data.workers=0, or allow more in /dev/shm") from error
        if "exited unexpectedly" in text or "killed by signal" in text:
            raise RunError(f"{text}; the record can be resumed, with data.workers=0 if memory was short") from error
        raise
    finally:
        if readers:
            readers.give_notice()
        if readers and batches is not None:
            batches._shutdown_workers()  # when it is collected is too late: an error's traceback holds it


def _started(loader: DataLoader, workers: int) -> Any:
    """The loader at its start, when its workers get the data."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got pickle error")  # said below in one line
            return iter(loader)
    except (PicklingError, AttributeError, TypeError) as error:
        if "pickle" not in str(error):
            raise
        raise UserError(
            f"data.workers={workers}: the data set cannot be sent to other processes ({error}); use data.workers=0"
        ) from error


class _Refusal:
    """Instead of a batch: why there is none. A loader makes a traceback of an error that a worker raises."""

    def __init__(self, error: UserError | MemoryError) -> None:
        self.error = error


class _Answering(Indexed):
    """A part as workers read it."""

    def __init__(self, part: Part | ItemsWithDraws) -> None:
        self._part = part

    def __getitem__(self, wanted: Wanted) -> tuple[Tensor, ...] | _Refusal:
        """A batch, or why there is none."""
        try:
            return self._part[wanted]
        except (UserError, MemoryError) as error:
            return _Refusal(error)


class _Sampler:
    """What is wanted, batch by batch, for a loader, which wants no more of a sampler."""

    def __init__(self, wanted: Iterable[Wanted]) -> None:
        self._wanted = wanted

    def __iter__(self) -> Iterator[Wanted]:
        return iter(self._wanted)
