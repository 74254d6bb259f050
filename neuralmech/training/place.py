"""Where this process stands among those that torchrun started; needs no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Rank:
    """Number of this process among `count`, and among those of its computer."""

    rank: int
    count: int
    local: int


def placed() -> Rank | None:
    """What the environment says, as torchrun sets it; None for a process on its own."""
    if any(name not in os.environ for name in NEEDED) or int(os.environ["WORLD_SIZE"]) == 1:
        return None
    rank = int(os.environ["RANK"])
    return Rank(rank, int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", rank)))
