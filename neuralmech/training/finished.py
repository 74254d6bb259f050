"""A run that is over: how it ended, and whether a config asks more of it than it has done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

from neuralmech.record import FILE_NAME, RecordError, open_record
from neuralmech.record.files import is_in_use
from neuralmech.training.recorded import MAY_GROW, changed_config, flat


@dataclass(frozen=True)
class Result:
    """How a run ended: rows in the record, last loss and accuracy (NaN: it has none) on held-out data."""

    rows: int
    loss: float
    accuracy: float


def finished(folder: Path, changes: Mapping[str, Any]) -> Result | None:
    """How a run ended whose record is complete and whole, and that goes no further with these `changes`.

    None if there is more to do, be it to mend the record. Nothing is written.

    Raises
    ------
    UserError
        If the changes would make it another run.
    """
    if not (folder / FILE_NAME).is_file() or is_in_use(folder):
        return None
    try:
        with open_record(folder) as record:
            if record.status != "complete" or record.readable_rows() < record.rows:
                return None
            before, held_out = flat(record.config), record.evaluation().tail(1)
            result = Result(
                record.rows, *(held_out[["loss", "accuracy"]].to_numpy()[0] if len(held_out) else (nan, nan))
            )
    except RecordError:
        return None
    after = changed_config(folder, changes).train
    asked = {"train.steps": after.steps, "train.epochs": after.epochs}
    return result if all(asked[key] == before.get(key) for key in MAY_GROW) else None
