"""Pass what is recorded on to an experiment tracker: means over sites, from the thread that writes the record."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuralmech.loggers.names import LOGGERS, check_installed

if TYPE_CHECKING:
    from neuralmech.loggers.feed import Feed, opened

__all__ = ["LOGGERS", "Feed", "check_installed", "opened"]


def __getattr__(name: str) -> Any:
    if name in ("Feed", "opened"):  # which need NumPy; that of a name is checked without
        return getattr(import_module("neuralmech.loggers.feed"), name)
    raise AttributeError(f"module 'neuralmech.loggers' has no attribute {name!r}")
