"""Random numbers that a user's own code draws, made a function of what they are for."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

Own = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the global generators of PyTorch (the CPU's), NumPy and Python back at the end."""
    torchs, numpys, pythons = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(torchs)
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)


def seed_generators(numbers: tuple[int, ...], own: list[Own]) -> None:
    """Seed the same generators, and some others, so that what they give depends on these numbers alone."""
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
    """Where the same generators are: another state says that something was drawn."""
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
