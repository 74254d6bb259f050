"""When to record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Every:
    """Record steps 0, n, 2n and so on.

    Examples
    --------
    >>> [k for k in range(7) if Every(3).wants(k)]
    [0, 3, 6]
    """

    n: int = 1

    def wants(self, step: int) -> bool:
        """Whether to record the step that starts at θ_step."""
        return step % self.n == 0
