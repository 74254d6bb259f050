"""Pass what is recorded on to an experiment tracker: means over sites, from the thread that writes the record."""

from neuralmech.loggers.feed import LOGGERS, Feed, check_installed, opened

__all__ = ["LOGGERS", "Feed", "check_installed", "opened"]
