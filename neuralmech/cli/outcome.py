"""What became of a job, wherever it ran."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

from neuralmech.errors import RunError, UserError
from neuralmech.record import RecordError

TOLD = (UserError, RecordError, RunError, MemoryError, OSError)  # what is said in one line


class BlockedError(BaseException):
    """What Hydra would make a warning of if it were an `Exception`; the cause is what is wrong."""


class Outcome(float):
    """What a job of a sweep gives back: its error, if it had one, and whether that refused the sweep as a whole.

    It is a number for a sweeper that looks for the best job.

    A launcher that runs jobs in other processes, or on other computers, brings the outcome to the one that the user
    looks at, and there Hydra drops it. So it leaves word where it is unpickled.

    Attributes
    ----------
    arrived
        Outcomes from elsewhere, by the number of their job.
    """

    arrived: ClassVar[dict[int, Outcome]] = {}

    number: int
    error: Exception | None
    refused: bool

    def __new__(
        cls, number: int, error: Exception | None = None, *, refused: bool = False, value: float | None = None
    ) -> Self:
        """Make one; `value` is the number, NaN if there is none."""
        self = super().__new__(cls, math.nan if value is None else value)
        self.number, self.error, self.refused = number, error, refused
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how it is unpickled."""
        return _arrive, (self.number, self.error, self.refused, float(self))


def _arrive(number: int, error: Exception | None, refused: bool, value: float) -> Outcome:
    Outcome.arrived[number] = Outcome(number, error, refused=refused, value=value)
    return Outcome.arrived[number]
