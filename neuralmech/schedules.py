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
    "milestones": lambda progress, step, o: o.gamma ** sum(step >= milestone for milestone in o.milestones),
    "one_cycle": lambda progress, step, o: _one_cycle(progress, o),
}


def _one_cycle(progress: float, o: Any) -> float:
    """Up and down again (Smith & Topin 2019): half a wave of a cosine to 1, and another one to the last factor."""
    first = 1 / o.div_factor
    if progress < o.peak:
        return 1 + (first - 1) * (1 + math.cos(math.pi * progress / o.peak)) / 2
    last = first / o.final_div_factor
    return last + (1 - last) * (1 + math.cos(math.pi * (progress - o.peak) / (1 - o.peak))) / 2


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
