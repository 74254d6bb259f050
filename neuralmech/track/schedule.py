"""When to record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Record every n-th step: all along, or within windows of steps [first, end).

    Examples
    --------
    >>> [k for k in range(7) if Schedule(3).wants(k)]
    [0, 3, 6]
    >>> some = Schedule(2, [(1, 4), (8, 10)])
    >>> [k for k in range(12) if some.wants(k)], some.count(9), [some.position(k) for k in (2, 8)]
    ([2, 8], 2, [0, 0])
    """

    every: int = 1
    windows: Sequence[Sequence[int]] | None = None

    def wants(self, step: int) -> bool:
        """Whether to record the step that starts at θ_step."""
        return step % self.every == 0 and (
            self.windows is None or any(first <= step < end for first, end in self.windows)
        )

    def count(self, steps: int) -> int:
        """Rows of a run of so many steps."""
        return sum(self._up_to(min(end, steps)) - self._up_to(min(first, steps)) for first, end in self._windows(steps))

    def position(self, step: int) -> int:
        """Rows before this one in its window."""
        first = next(first for first, end in self._windows(step + 1) if first <= step < end)
        return self._up_to(step) - self._up_to(first)

    def _windows(self, steps: int) -> Sequence[Sequence[int]]:
        return [(0, steps)] if self.windows is None else self.windows

    def _up_to(self, step: int) -> int:
        """Multiples of n below a step."""
        return -(-step // self.every)
