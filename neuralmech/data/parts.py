"""The samples of a part of a data set, in memory or read one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pickle import PicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as Indexed
from torch.utils.data import default_collate

from neuralmech.data.draws import Own, generators_kept, generators_state, own_generators, seed_generators
from neuralmech.errors import UserError, users_line


class Wanted(NamedTuple):
    """Samples by number, and what their random numbers depend on besides: such as seed, epoch and part."""

    indices: NDArray[np.int64]
    key: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Samples(Indexed):
    """Inputs (samples, …) and targets (samples, …) in memory: real numbers, bytes of images (uint8), or tokens."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, wanted: NDArray[np.int64] | Wanted) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some samples, as stored."""
        chosen = torch.from_numpy(wanted.indices if isinstance(wanted, Wanted) else wanted)
        return self.x[chosen], self.y[chosen]

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.x.nbytes + self.y.nbytes

    def to(self, device: torch.device, dtype: torch.dtype) -> Samples:
        """Copy to a device: bytes as they are, real numbers in a floating-point type, tokens as int64."""
        kept = torch.uint8 if self.x.dtype == torch.uint8 else dtype if self.x.is_floating_point() else torch.int64
        return Samples(self.x.to(device, kept), self.y.to(device))


@dataclass(frozen=True)
class Items(Indexed):
    """A torch data set of pairs (input, target) that is read item by item, when a batch is wanted.

    What an item draws at random is a function of a key and of its number: before each one the global generators of
    PyTorch, NumPy and Python are seeded, and those that the data set keeps for itself. The global ones are put back.

    Attributes
    ----------
    name
        What errors call it.
    targets
        Checks targets and gives them their type, as `neuralmech.data.targets.Targets` does.
    """

    items: Any
    name: str = "data set"
    targets: Callable[[Tensor, Callable[[int], str]], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, wanted: NDArray[np.int64] | Wanted) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some samples.

        Raises
        ------
        UserError
            If an item cannot be read, is no pair of tensors or numbers, does not go into a batch with the others, or
            the loss cannot take its target; it names the item.
        """
        numbers, key = wanted if isinstance(wanted, Wanted) else Wanted(wanted)
        indices = numbers.tolist()
        pairs = []
        with generators_kept():
            for i in indices:
                seed_generators((*key, i), self._own)
                pairs.append(self._pair(i))
        return self._batch(indices, pairs)

    def watched(
        self, numbers: Int64[NDArray, " samples"]
    ) -> tuple[Shaped[Tensor, "samples ..."], Shaped[Tensor, "samples ..."], bool]:
        """Inputs and targets of some samples, and whether any of them drew a random number."""
        indices = numbers.tolist()
        with generators_kept():
            seed_generators((0,), self._own)
            before = generators_state(self._own)
            x, y = self._batch(indices, [self._pair(i) for i in indices])
            return x, y, generators_state(self._own) != before

    def _batch(self, indices: list[int], pairs: list[tuple[Any, Any]]) -> tuple[Tensor, Tensor]:
        try:
            x, y = default_collate(pairs)
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
            other = next((i for i, pair in zip(indices, pairs, strict=True) if not _go_together(pairs[0], pair)), None)
            which = f"item {indices[0]}" if other is None else f"items {indices[0]} and {other}"
            raise UserError(
                f"data: {which} of the {self.name} cannot be put into a batch ({error}); mend the data set"
            ) from error
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            kinds = " and ".join(type(value).__name__ for value in pairs[0])
            raise UserError(
                f"data: item {indices[0]} of the {self.name} is no pair of an input and a label ({kinds}); return "
                "(input, target), each a tensor or a number"
            )
        return x, y if self.targets is None else self.targets(y, lambda k: f"item {indices[k]} of the {self.name}")

    def _pair(self, i: int) -> tuple[Any, Any]:
        try:
            item = self.items[i]
        except (UserError, MemoryError):
            raise
        except Exception as error:  # whatever a user's code raises
            where = f" at {place}" if (place := users_line(error)) else ""
            what = f"{type(error).__name__}: {error}{where}"
            raise UserError(f"data: item {i} of the {self.name} raises {what}; mend it or leave it out") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            what = f"a dict of {', '.join(map(str, item))}" if isinstance(item, dict) else f"a {type(item).__name__}"
            what = f"{what} of {len(item)}" if isinstance(item, tuple | list) else what
            raise UserError(
                f"data: item {i} of the {self.name} is no pair of an input and a label ({what}); return (input, target)"
            )
        return item[0], item[1]

    @cached_property
    def _own(self) -> list[Own]:
        return own_generators(self.items)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker, whose copy finds generators of its own."""
        if any(isinstance(generator, torch.Generator) for generator in self._own):
            raise PicklingError("it keeps a torch.Generator, which PyTorch can pickle for no other process")
        return {"items": self.items, "name": self.name, "targets": self.targets}

    @property
    def size(self) -> int:
        """Bytes in memory, if it were all there."""
        x, y = self[np.zeros(1, dtype=np.int64)]
        return len(self) * (x.nbytes + y.nbytes)


def _go_together(*pairs: tuple[Any, Any]) -> bool:
    try:
        default_collate(list(pairs))
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError):
        return False
    return True


@dataclass(frozen=True)
class ItemsWithDraws(Indexed):
    """`Items` with a third tensor: whether any of them drew a random number."""

    part: Items

    def __getitem__(self, wanted: Wanted) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and targets of some samples, and that."""
        x, y, drew = self.part.watched(wanted.indices)
        return x, y, torch.tensor(drew)


Part = Samples | Items
