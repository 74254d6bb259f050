"""Numbers in ``logged.csv`` in the run's folder: a line ``step,name,value`` each."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "logged.csv"


class Logger:
    """A file that is written line by line, and continued where a run is."""

    def __init__(self, folder: Path, config: Mapping[str, Any], project: str) -> None:
        path = folder / FILE
        is_new = not path.exists()
        self._file = path.open("a", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        if is_new:
            self._rows.writerow(("step", "name", "value"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the numbers of a step."""
        self._rows.writerows((step, name, repr(value)) for name, value in values.items())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
