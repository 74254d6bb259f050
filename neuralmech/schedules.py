"""Learning rate and weight decay as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

# name → factor on the base rate, given progress in [0, 1), steps since warm-up, and the options
SCHEDULES: dict[str, Callable[[float, int, Any], float]] = {
    "constant": lambda progress, step, o: 1.0,
    "linear": lambda progress, step, o: o.min_factor + (1 - o.min_factor) * (1 - progress),
    "cosine": lambda progress, step, o: o.min_factor + (1 - o.min_factor) * (1 + math.cos(math.pi * progress)) / 2,
    "step": lambda progress, step, o: o.gamma ** (step // o.step_size),
}


def scheduled(base: float, options: Any, step: int, steps: int) -> float:
    """η (or λ) of the update at `step` of `steps`; the first step of a warm-up is already positive.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> o = SimpleNamespace(name="linear", warmup=2, min_factor=0.0)
    >>> [scheduled(1.0, o, k, 6) for k in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < options.warmup:
        return base * (step + 1) / options.warmup
    done, length = step - options.warmup, max(1, steps - options.warmup)
    return base * SCHEDULES[options.name](done / length, done, options)
