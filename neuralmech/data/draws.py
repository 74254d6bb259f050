"""Every random number of a run's data: the order of samples, what a batch draws, and what the user's own code draws."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

CPU = torch.device("cpu")
RANKS = 4  # keeps what other processes than the first draw apart from what batches are made of
Own = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


class Order:
    """Samples of a step, a function of (seed, step) alone: each epoch is a fresh permutation without its remainder."""

    def __init__(self, samples: int, batch_size: int, seed: int, device: torch.device = CPU) -> None:
        self.per_epoch = samples // batch_size
        self._samples, self._batch_size, self._seed, self._device = samples, batch_size, seed, device
        self._permutation = lru_cache(maxsize=1)(self._draw)

    def __call__(self, step: int) -> Tensor:
        """Indices of the step's samples."""
        epoch, position = divmod(step, self.per_epoch)
        return self._permutation(epoch)[position * self._batch_size : (position + 1) * self._batch_size]

    def _draw(self, epoch: int) -> Tensor:
        return moved(torch.randperm(self._samples, generator=generator(self._seed, epoch)), self._device)


def generator(seed: int, *numbers: int) -> torch.Generator:
    """A generator on the CPU that depends on these numbers alone, so that every device draws the same."""
    state = int(np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state % 2**63)


def moved(tensor: Shaped[Tensor, "*shape"], device: torch.device) -> Shaped[Tensor, "*shape"]:
    """Copy from the host to a device without waiting for what the device is doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def seed_all(seed: int) -> None:
    """Seed the generators that a model may draw from: PyTorch's, NumPy's global one and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (the one that models use)
    random.seed(seed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed them for a step of another process than the first; those of the current GPU, too, if one is in use."""
    seed_generators((seed, step, rank, RANKS), [])
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(torch.default_generator.initial_seed())


def random_state(device: torch.device) -> dict[str, Any]:
    """State of these generators for a checkpoint: dropout draws from PyTorch's, a model of one's own from any."""
    cuda = torch.cuda.get_rng_state_all() if device.type == "cuda" else []
    version, words, gauss = random.getstate()
    python = {"version": version, "words": torch.tensor(words), "gauss": gauss}
    name, key, place, has_gauss, spare = np.random.get_state()  # noqa: NPY002
    numpy = {"name": name, "key": torch.from_numpy(np.asarray(key).astype(np.int64)), "rest": [place, has_gauss, spare]}
    return {"cpu": torch.get_rng_state(), "cuda": cuda, "python": python, "numpy": numpy}


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put the generators where they were; those of a GPU, and those that older checkpoints lack, only if there."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    if python := state.get("python"):
        random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    if numpy := state.get("numpy"):
        np.random.set_state((numpy["name"], numpy["key"].numpy().astype(np.uint32), *numpy["rest"]))  # noqa: NPY002


@contextmanager
def generators_kept(device: torch.device = CPU) -> Iterator[None]:
    """Put the global generators of PyTorch (the CPU's, and a GPU's if that is the device), NumPy and Python back."""
    torchs, numpys, pythons = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    cudas = torch.cuda.get_rng_state_all() if device.type == "cuda" else []
    try:
        yield
    finally:
        torch.set_rng_state(torchs)
        if cudas:
            torch.cuda.set_rng_state_all(cudas)
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)


def seed_generators(numbers: tuple[int, ...], own: list[Own]) -> None:
    """Seed the global generators, and a data set's `own`, so that what they give depends on these numbers alone."""
    first, *rest = np.random.SeedSequence(numbers).generate_state(3 + len(own), np.uint64).tolist()
    torch.default_generator.manual_seed(first % 2**63)  # torch.manual_seed seeds devices, too, and takes its time
    np.random.seed(rest[0] % 2**32)  # noqa: NPY002  (the one that people's code draws from)
    random.seed(rest[1])
    for generator, seed in zip(own, rest[2:], strict=True):
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed % 2**63)
        elif isinstance(generator, np.random.Generator):
            bits: Any = generator.bit_generator
            bits.state = type(bits)(seed).state
        else:
            generator.seed(seed % 2**32)


def generators_state(own: list[Own]) -> bytes:
    """Where the global generators and a data set's own are: another state says that something was drawn."""
    parts: list[Any] = [np.random.get_state(), random.getstate(), torch.get_rng_state().numpy().tobytes()]  # noqa: NPY002
    return pickle.dumps([*parts, *map(state_of, own)])


def state_of(generator: Own) -> Any:
    """Where one generator is, in a form that pickles."""
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().tobytes()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.getstate()


def own_generators(items: Any) -> list[Own]:
    """Generators that a data set keeps for itself, as far as it can be pickled, in the order of its attributes."""
    found = _Finder(BytesIO())
    with suppress(Exception):  # whatever a user's object does when it is pickled; the rest is looked at all the same
        found.dump(items)
    return found.generators


class _Finder(pickle.Pickler):
    """A pickler sees every object that another one holds; numbers in bulk are not looked into."""

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file)
        self.generators: list[Own] = []

    def persistent_id(self, obj: Any) -> str | None:
        """Keep a generator, and say what else is not to be looked into."""
        if isinstance(obj, Own):
            if not any(obj is other for other in self.generators):
                self.generators.append(obj)
            return "generator"
        is_bulk = isinstance(obj, Tensor | torch.UntypedStorage | bytes) or (
            isinstance(obj, np.ndarray) and obj.dtype != object
        )
        return "numbers" if is_bulk else None
