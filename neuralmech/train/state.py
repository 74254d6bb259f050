"""Everything that a run carries from step to step, as tensors and plain data for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from neuralmech.record.rows import Position, Rows


def random_state(device: torch.device) -> dict[str, Any]:
    """State of the generators that dropout draws from."""
    cuda = torch.cuda.get_rng_state_all() if device.type == "cuda" else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put the generators where they were; those of a GPU only if they were in use."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


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
