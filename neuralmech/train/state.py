"""Everything that a run carries from step to step, as tensors and plain data for a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from neuralmech.record.rows import Position, Rows


def seed_all(seed: int) -> None:
    """Seed the generators that a model may draw from: PyTorch's, NumPy's global one and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (the one that models use)
    random.seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """State of the same generators: dropout draws from PyTorch's, a model of one's own perhaps from the others."""
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
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Put the generators back at the end."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)


def from_position(position: Position) -> dict[str, Any]:
    """A place in the record, with the rows that wait for their chunk to fill."""
    waiting = position.waiting
    return {
        "rows": position.rows,
        "evaluations": position.evaluations,
        "steps": {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in waiting.steps.items()},
        "charges": {
            family: {signal: torch.from_numpy(np.ascontiguousarray(v)) for signal, v in signals.items()}
            for family, signals in waiting.charges.items()
        },
    }


def to_position(state: Mapping[str, Any]) -> Position:
    """Inverse of `from_position`.

    Raises
    ------
    ValueError
        For numbers of rows that are none.
    """
    if not all(type(state[name]) is int and state[name] >= 0 for name in ("rows", "evaluations")):
        raise ValueError("rows and evaluations are whole numbers")
    waiting = Rows(
        {name: v.numpy() for name, v in state["steps"].items()},
        {family: {s: v.numpy() for s, v in signals.items()} for family, signals in state["charges"].items()},
    )
    return Position(state["rows"], state["evaluations"], waiting)
