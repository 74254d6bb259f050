"""Look at a run after each of its steps, whatever way it takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from neuralmech.training import loop
from neuralmech.training.run import Run


@contextmanager
def after_each_step(look: Callable[[Run], None]) -> Iterator[None]:
    """Call `look` with the run after every step that a training loop takes meanwhile."""
    take = loop.take_step

    def step(run: Run, x: Tensor, y: Tensor) -> None:
        take(run, x, y)
        look(run)

    loop.take_step = step
    try:
        yield
    finally:
        loop.take_step = take
