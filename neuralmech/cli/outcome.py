"""What became of a job, wherever it ran."""

from __future__ import annotations

from typing import Any, ClassVar

from neuralmech.errors import RunError, UserError
from neuralmech.record import RecordError

TOLD = (UserError, RecordError, RunError, MemoryError, OSError)  # what is said in one line


class Outcome:
    """What a job of a sweep gives back: its error, if it had one, and whether that refused the sweep as a whole.

    A launcher that runs jobs in other processes, or on other computers, brings the outcome to the one that the user
    looks at, and there Hydra drops it. So it leaves word where it is unpickled.

    Attributes
    ----------
    arrived
        Outcomes from elsewhere, by the number of their job.
    """

    arrived: ClassVar[dict[int, Outcome]] = {}

    def __init__(self, number: int, error: Exception | None = None, *, refused: bool = False) -> None:
        self.number, self.error, self.refused = number, error, refused

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how it is unpickled."""
        return _arrive, (self.number, self.error, self.refused)


def _arrive(number: int, error: Exception | None, refused: bool) -> Outcome:
    Outcome.arrived[number] = Outcome(number, error, refused=refused)
    return Outcome.arrived[number]
