"""Batches that worker processes read ahead, and that reach the device without being waited for."""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import count
from multiprocessing import forkserver, resource_tracker
from pickle import PicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from neuralmech.data.parts import Part
from neuralmech.errors import RunError, UserError

AHEAD = 4  # batches that each worker reads ahead


class Stream:
    """Batch of a step as stored, on the device; reads ahead from the last step asked for.

    Parameters
    ----------
    indices
        Samples of a step.
    """

    def __init__(self, part: Part, indices: Callable[[int], Tensor], device: torch.device, workers: int) -> None:
        self._part, self._indices, self._device, self._workers = part, indices, device, workers
        self._ahead: Generator[tuple[Tensor, Tensor], None, None] | None = None
        self._next = 0
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the step's batch."""
        if self._last is not None and step == self._next - 1:
            return self._last
        if self._ahead is None or step != self._next:
            self.close()
            wanted = (self._indices(k).numpy() for k in count(step))
            self._ahead = read(self._part, wanted, self._device, self._workers)
        self._last, self._next = next(self._ahead), step + 1
        return self._last

    def close(self) -> None:
        """End the workers; the next batch asked for starts them again."""
        if self._ahead is not None:
            self._ahead.close()
        self._ahead, self._last = None, None


def read(
    part: Part, wanted: Iterable[NDArray[np.int64]], device: torch.device, workers: int
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield batches as stored, on the device, read by so many processes (0: by this one).

    Raises
    ------
    UserError
        If the data cannot be sent to the workers.
    RunError
        If a worker is killed.
    """
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": device.type == "cuda"}
    if workers:
        options |= {"multiprocessing_context": _context(), "prefetch_factor": AHEAD, "worker_init_fn": _stay}
    # An own generator: the loader would draw from the one that dropout draws from.
    loader = DataLoader(part, batch_size=None, sampler=_Wanted(wanted), generator=torch.Generator(), **options)
    try:
        for x, y in _started(loader, workers):
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        if "</torch_" in text or "shared memory" in text:
            raise UserError(f"data.workers={workers}: {text}; use data.workers=0, or allow more in /dev/shm") from error
        if "exited unexpectedly" in text or "killed by signal" in text:
            raise RunError(f"{text}; the record can be resumed, with data.workers=0 if memory was short") from error
        raise


def _started(loader: DataLoader, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
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


class _Wanted:
    """An iterable of index arrays for a loader, which wants no more of a sampler."""

    def __init__(self, wanted: Iterable[NDArray[np.int64]]) -> None:
        self._wanted = wanted

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return iter(self._wanted)


def _context() -> Any:
    """Start workers from a clean process: a fork of this one may inherit a lock that the record's writer holds."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    _start_server()
    return context


def _start_server() -> None:
    """Start the clean process deaf to Ctrl-C and SIGTERM, as all that it forks: both need seconds to say so themselves.

    A mask is inherited; `_stay` is for where workers are spawned. Python has one such server to a process, so what
    others start from it later is deaf, too, and `Process.terminate` does nothing to it (`kill` does). A server that
    runs already is left as it is: who needs both calls `multiprocessing.forkserver.ensure_running()` first.
    """
    resource_tracker.ensure_running()  # it takes signals off the mask when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stay(_: int) -> None:
    """Leave Ctrl-C and SIGTERM to the parent, which finishes its step and then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
