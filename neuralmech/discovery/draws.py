"""Random numbers that a trace cannot see: it would take one draw of Python's or NumPy's generators for a constant."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import dumps
from typing import Any

import numpy as np
from torch import nn

from neuralmech.data.draws import state_of
from neuralmech.errors import UserError


@contextmanager
def refuse_unseen_draws(model: nn.Module) -> Iterator[None]:
    """Raise a `UserError` if the code inside draws from generators that are not torch's; their state is restored.

    Noticed are the global generators of ``random`` and ``numpy.random`` and those that `model`'s modules keep.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (the user's forward() draws from it)
    own = {name: dumps(state_of(g)) for name, g in _generators(model)}
    try:
        yield
        drawn = [name for name, g in _generators(model) if dumps(state_of(g)) != own.get(name)]
        if random.getstate() != python:
            drawn.append("random")
        if dumps(np.random.get_state()) != dumps(numpy):  # noqa: NPY002
            drawn.append("numpy.random")
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
    if drawn:
        raise UserError(
            f"model: {type(model).__name__} draws random numbers from {' and '.join(drawn)} in its forward(), of which "
            "a trace sees one draw only; draw them with torch (torch.rand, torch.randperm), or turn that part off"
        )


def _generators(model: nn.Module) -> Iterator[tuple[str, Any]]:
    kinds = (np.random.Generator, np.random.RandomState, random.Random)
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, kinds):
                yield f"{path}.{name}".lstrip("."), value
