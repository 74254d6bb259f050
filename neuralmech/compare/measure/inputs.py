"""What laws take from a record: hyperparameters, drives, and the circumstances under which they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from neuralmech.laws.system import Array, Circumstances, Hyperparameters
from neuralmech.record import Charges, Record, RecordError

DERIVED = {"unit_drive": ("drive_update", "value")}  # signals that are products of recorded ones


def circumstances(record: Record, charges: Charges) -> Circumstances:
    """What laws must know of a run to say whether they hold for some of its charges."""
    return Circumstances(
        family=charges.name,
        translation=charges.is_translation,
        signals=(*charges.signals, *(name for name, of in DERIVED.items() if set(of) <= set(charges.signals))),
        optimizer=str(record.config.get("optim", {}).get("name", "sgd")),
        momentum="momentum" in record.in_use,
        dampening="dampening" in record.in_use,
        nesterov="nesterov" in record.in_use,
    )


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of a window of the record; the window is the whole record unless ``track.steps`` cut it."""

    rows: slice
    window: slice
    is_start: bool = True  # of the run: no update was taken before the window

    @property
    def begins(self) -> bool:
        """Whether the window begins here."""
        return self.rows.start == self.window.start

    @property
    def ends(self) -> bool:
        """Whether the window ends here."""
        return self.rows.stop == self.window.stop

    def following(self, charges: Charges) -> Float64[Array, " charges"] | None:
        """Charges at the second row of a window that begins here, in the middle of the run; None otherwise."""
        if not self.begins or self.is_start:
            return None
        return charges.value[min(self.rows.start + 1, self.window.stop - 1)]


def stretches(record: Record, size: int) -> Iterator[Stretch]:
    """Cover a record by stretches of up to `size` rows, none of which reaches over a gap."""
    for window in record.windows:
        first = slice(window.start, window.start + 1)
        is_start = bool((record.column("step", first) == record.column("skipped", first)).all())
        for start in range(window.start, window.stop, size):
            yield Stretch(slice(start, min(start + size, window.stop)), window, is_start)


def hyperparameters(record: Record, stretch: Stretch) -> Hyperparameters:
    """Hyperparameters of some rows of a record.

    Raises
    ------
    RecordError
        If the steps do not increase, or more are skipped than there are.
    """
    rows = stretch.rows
    ahead = record.steps(rows.start, rows.stop + (not stretch.ends))  # the row after the last says how far it spans
    gaps = np.diff(ahead["step"])
    if (gaps <= 0).any():
        raise RecordError(f"{record.path} is damaged (steps do not increase); restore a copy")
    left_out = np.diff(ahead["skipped"])
    if ((left_out < 0) | (left_out > gaps)).any():
        raise RecordError(f"{record.path} is damaged (skipped steps do not add up); restore a copy")
    columns = {name: values[: rows.stop - rows.start] for name, values in ahead.items()}
    missing = len(columns["step"]) - len(gaps)
    span = np.append(gaps - left_out, np.ones(missing)).astype(np.float64)
    # Between rows several steps apart the mean learning rate stands for each of them.
    mean = np.append(np.diff(ahead["time"]) / gaps, columns["lr"][len(gaps) :])
    return Hyperparameters(
        lr=np.where(span == 1, columns["lr"], mean),
        momentum=columns["momentum"],
        dampening=columns["dampening"],
        weight_decay=columns["weight_decay"],
        nesterov=columns["nesterov"].astype(bool),
        span=span,
        first=columns["step"] == columns["skipped"],  # none before it was taken
        decoupled=columns["decoupled"].astype(bool),
        batch_size=columns["batch_size"],
    )


def signal(charges: Charges, name: str, rows: slice) -> Float64[Array, "rows charges"]:
    """A recorded signal, or the product of recorded ones: (rows, charges)."""
    parts = [getattr(charges, part)[rows] for part in DERIVED.get(name, (name,))]
    return parts[0] if len(parts) == 1 else np.multiply(*parts)
