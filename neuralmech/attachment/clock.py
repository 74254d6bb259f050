"""Where a training is that somebody else takes the steps of, and what following it costs."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter


@dataclass
class Clock:
    """Where the training is: steps taken, Σ η, and how often steps were taken that nobody measured."""

    step: int = 0
    time: float = 0.0
    segment: int = 0


@dataclass
class Spent:
    """Seconds of tracking in steps, and of all from the first step on.

    Those of discovery, and of the first rows of a part, for which kernels are compiled, are in neither.
    """

    tracking: float = 0.0
    since: float | None = None
    besides: float = 0.0

    @property
    def share(self) -> float:
        """Of tracking in the time of the loop without it, all that it does between steps included."""
        if self.since is None:
            return 0.0
        rest = perf_counter() - self.since - self.besides - self.tracking
        return self.tracking / rest if rest > 0 else 0.0
