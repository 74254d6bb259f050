"""How far an exact law is from the charges of a record that still grows: only rows that are new are read."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from neuralmech.compare.measure.inputs import (
    ChargeClass,
    Stretch,
    classes,
    hyperparameters,
    rounding,
    signal,
    stretches,
)
from neuralmech.compare.measure.views import Family
from neuralmech.laws import LAWS
from neuralmech.laws.integration import Integration
from neuralmech.laws.system import Array, Hyperparameters, Law
from neuralmech.record import Record

NUMBERS = 1 << 19  # read at once: several such are read between two writes of a run
EXACT = ("discrete", "discrete_ascent", "moving_metric")  # the first that holds for a charge is run
RESTING = "moved by rounding alone so far"


class RunningError:
    """The exact law's error of each family, carried from look to look; `advance` takes it to the record's end.

    It begins again where the record is another one, was cut, or has steps under which other laws hold.
    """

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}
        self._rows = 0
        self._of: Any = None

    @property
    def rows(self) -> int:
        """How many rows were taken in."""
        return self._rows

    def advance(self, record: Record, of: Mapping[str, Family], *, ended: bool, until: float = float("inf")) -> None:
        """Take in rows that are new of some families, as many as the clock (`time.monotonic`) allows.

        How far the last row of one that goes on spans is not known yet: it is left for the next look, unless the run
        `ended`. A block whose reading fails is left as a whole.
        """
        found = {name: classes(record, charges) for name, charges in of.items()}
        identity = record.identity, {name: [c.circumstances for c in of_it] for name, of_it in found.items()}
        if identity != self._of or record.rows < self._rows:
            self._of, self._rows = identity, 0
            self._families = {name: _Family(charges, found[name]) for name, charges in of.items()}
        end = record.rows if ended else record.rows - 1
        width = sum(len(charges) * len(charges.signals) for charges in of.values())
        for stretch in stretches(record, max(16, min(1024, NUMBERS // max(1, width))), self._rows, end):
            if monotonic() > until:
                return
            h = hyperparameters(record, stretch)
            read = {name: family.read(record, of[name], stretch) for name, family in self._families.items()}
            for name, family in self._families.items():
                family.add(h, read[name])
            self._rows = stretch.rows.stop

    def errors(
        self, record: Record, charges: Family
    ) -> tuple[Float64[Array, " charges"], Float64[Array, " charges"], str]:
        """Sums over rows of (theory − measured)² and of measured², NaN where there is no law, and the reason why."""
        return self._families[charges.name].errors(record, charges)


class _Rows(NamedTuple):
    """A family's charges in some rows, the law's inputs there, and `Stretch.following`."""

    value: Array
    inputs: dict[str, Array]
    following: Array | None


class _Family:
    """One family's laws, class by class, and their sums."""

    def __init__(self, charges: Family, of: list[ChargeClass]) -> None:
        self._runs, self._reason = [], ""
        for one in of:
            laws = [LAWS[law].within(one.circumstances) for law in EXACT]
            law = next((law for law in laws if not law.reason(one.circumstances)), None)
            if law is None:
                self._reason = self._reason or _why(laws, one)
                continue
            names = law.signals(one.circumstances)
            run = Integration(law, translation=charges.is_translation, signals=names)
            self._runs.append((one, names, run))
        self._off, self._square, self._largest = np.full(len(charges), np.nan), *np.zeros((2, len(charges)))
        for one, _, _ in self._runs:
            self._off[one.columns] = 0.0

    def read(self, record: Record, charges: Family, stretch: Stretch) -> _Rows | None:
        """What a stretch of the record holds of the family; None if no law asks."""
        if not self._runs:
            return None
        names = {s for _, names, _ in self._runs for s in names}
        inputs = {s: signal(record, charges, s, stretch) for s in names}
        return _Rows(charges.value[stretch.rows], inputs, stretch.following(charges))

    def add(self, h: Hyperparameters, rows: _Rows | None) -> None:
        """Take in what was read."""
        if rows is None:
            return
        self._square += np.einsum("kc,kc->c", rows.value, rows.value)
        self._largest = np.maximum(self._largest, np.abs(rows.value).max(axis=0))
        for one, names, run in self._runs:
            own = rows.value[:, one.columns]
            inputs = np.empty((len(own), len(names), own.shape[1]))
            for i, name in enumerate(names):
                inputs[:, i] = rows.inputs[name][:, one.columns]
            ahead = None if rows.following is None else rows.following[one.columns]
            off = run.advance(one.hyperparameters(h), own[0], inputs, ahead) - own
            self._off[one.columns] += np.einsum("kc,kc->c", off, off)

    def errors(self, record: Record, charges: Family) -> tuple[Array, Array, str]:
        """See `RunningError.errors`; a charge that never was anything but rounding has no error."""
        still = self._largest <= rounding(record, charges)
        off = np.where(still, np.nan, self._off)
        return off, self._square, self._reason or (RESTING if still.any() and self._runs else "")


def _why(laws: list[Law], of: ChargeClass) -> str:
    """Why no law holds: what is said of the one that is meant for such charges."""
    meant = laws[-1] if of.circumstances.metric else laws[0]
    return meant.reason(of.circumstances)
