"""What commands have in common that look at something again and again until it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from neuralmech.errors import UserError
from neuralmech.words import Differing


@dataclass(frozen=True, repr=False)
class Looks(Differing):
    """How often to look: every `interval` seconds, or `once`."""

    interval: float = 2.0
    once: bool = False

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        interval = self.interval
        if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not 0 < interval < float("inf"):
            raise UserError(f"interval={interval} must be a positive number of seconds")
        if not isinstance(self.once, bool):
            raise UserError(f"once={self.once} must be true or false")


@contextmanager
def until_ctrl_c() -> Iterator[None]:
    """Ctrl-C ends what is within, and nothing else; another signal goes on."""
    try:
        yield
    except KeyboardInterrupt as error:
        if getattr(error, "signal", None) is not None:
            raise
