"""The thread that feeds a logger."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from neuralmech.errors import UserError
from neuralmech.loggers.means import Columns, SiteMeans
from neuralmech.loggers.names import check_installed
from neuralmech.record.schema import FamilyLayout
from neuralmech.words import first_line, printable

LAST_SECONDS = 60.0  # that the end of a run waits for its logger


class Logger(Protocol):
    """What a logger must do; it is made in the run's folder, with the run's config and the name of a project."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers of a step; steps come in order."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Feed:
    """Hears of each block of rows, and hands every n-th row to a logger from a thread of its own.

    A logger that fails is left alone from then on, which is said once: training goes on.
    """

    def __init__(self, logger: Logger, name: str, means: SiteMeans) -> None:
        self._logger, self._name, self._means = logger, name, means
        self._queue: SimpleQueue[tuple[int, dict[str, float]] | None] = SimpleQueue()
        self._failed = False
        self._thread = Thread(target=self._work, name="logger", daemon=True)
        self._thread.start()

    def hear(self, steps: Mapping[str, Any], charges: Columns) -> None:
        """Take what is wanted of a block of rows, whose arrays may be used again afterwards."""
        if not self._failed:
            for row in self._means.of(steps, charges):
                self._queue.put(row)

    def close(self) -> None:
        """Wait until the logger has everything, but not for ever."""
        self._queue.put(None)
        self._thread.join(LAST_SECONDS)

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        try:
            while (row := self._queue.get()) is not None:
                self._logger.write(*row)
            self._logger.close()
        except Exception as error:  # noqa: BLE001  (whatever a logger does must not end a training)
            self._failed = True
            text = printable(first_line(error))
            print(f"neuralmech: logger={self._name} failed ({text}); the run goes on without it", file=sys.stderr)


def opened(
    name: str,
    folder: Path,
    config: Mapping[str, Any],
    layouts: Mapping[str, FamilyLayout],
    every: int = 100,
    project: str = "neuralmech",
) -> Feed | None:
    """Open a logger for a run; None for ``none``.

    Raises
    ------
    UserError
        If its library is not installed, or it cannot be opened.
    """
    check_installed(name)
    if name == "none":
        return None
    try:
        made = import_module(f"neuralmech.loggers.{name}_").Logger(folder, config, project)
    except Exception as error:
        raise UserError(f"logger={name} cannot be opened ({first_line(error)}); use logger=none") from error
    return Feed(made, name, SiteMeans(layouts, every))
