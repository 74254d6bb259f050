"""What one look at a run shows: charges, loss and effective learning rates so far, a few numbers of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from neuralmech.compare.measure.running import RunningError
from neuralmech.compare.measure.views import Family, diagonal, families
from neuralmech.compare.measure.views import family as family_of
from neuralmech.laws.system import Array
from neuralmech.record import Record

POINTS = 60  # of a curve at least, spread evenly over the rows


@dataclass(frozen=True)
class SiteGlance:
    """The charges of a site.

    Attributes
    ----------
    value
        Their mean at some rows; of a matrix-valued charge over its diagonal.
    rate
        η/Q with that mean, of normalised weights (family ``scale``); None of others.
    error
        RMS of the exact law − measured over that of measured so far; NaN where no law holds, `reason` says why.
    """

    family: str
    site: str
    charges: int
    value: Float64[Array, " points"]
    rate: Float64[Array, " points"] | None
    error: float
    reason: str


@dataclass(frozen=True)
class Glance:
    """A run at one moment.

    Attributes
    ----------
    about
        Model, data and rule in words.
    step, total
        Steps taken, and how many there will be, if the config says so.
    now
        The last row's hyperparameters.
    loss
        Means over parts of the rows, in their order; empty where nobody told it.
    held_out
        The last evaluation: step, loss, accuracy; None before the first.
    compared
        Share of the rows that the errors are of.
    """

    about: str
    step: int
    total: int | None
    now: dict[str, float]
    loss: Float64[Array, " points"]
    held_out: tuple[int, float, float] | None
    sites: tuple[SiteGlance, ...]
    compared: float = 1.0


class Looking:
    """Looks at a record that grows; each goes on from the one before, and reads little more than what is new."""

    def __init__(self) -> None:
        self.running = RunningError()
        self._means: dict[str, dict[int, Array]] = {}  # family → row → means over sites
        self._places: dict[str, _Places] = {}
        self._of: Any = None

    def look(self, record: Record, *, ended: bool, seconds: float = float("inf")) -> Glance:
        """Look at a record that has rows; what takes longer than `seconds` is left for the next looks.

        Where that is broken off by an error, the next look goes on.

        Raises
        ------
        RecordError
            If the record is damaged.
        """
        until = monotonic() + seconds
        of = {name: family_of(record, name) for name in families(record)}
        if record.identity != self._of or any(row >= record.rows for means in self._means.values() for row in means):
            self._places = {name: _Places(charges.index) for name, charges in of.items()}
            self._means, self._of = {name: {} for name in of}, record.identity
        self._sample(record, of, until)
        self.running.advance(record, of, ended=ended, until=until)
        last = {name: float(column[0]) for name, column in record.steps(record.rows - 1).items()}
        evaluations = record.evaluation()
        held_out = None
        if len(evaluations):
            step, loss, accuracy = evaluations.iloc[-1][["step", "loss", "accuracy"]]
            held_out = int(step), float(loss), float(accuracy)
        return Glance(
            about=_about(record),
            step=int(last["step"]) + 1,
            total=_total(record),
            now={name: last[name] for name in ("lr", "weight_decay", "momentum")},
            loss=_means(record.column("loss"), POINTS),
            held_out=held_out,
            sites=tuple(site for charges in of.values() for site in self._sites(record, charges)),
            compared=self.running.rows / max(1, record.rows - (not ended)),
        )

    def _sample(self, record: Record, of: Mapping[str, Family], until: float) -> None:
        """Read means over sites in rows that are spread evenly, the last one first."""
        stride = 1
        while record.rows > 2 * POINTS * stride:
            stride *= 2
        rows = [record.rows - 1, *range(0, record.rows - 1, stride)]
        for means in self._means.values():
            for row in means.keys() - set(rows):
                del means[row]
        for row in rows:
            missing = [name for name, means in self._means.items() if row not in means]
            found = {name: self._places[name].means(of[name].value[row]) for name in missing}
            for name, of_sites in found.items():
                self._means[name][row] = of_sites
            if monotonic() > until:
                return

    def _sites(self, record: Record, charges: Family) -> list[SiteGlance]:
        name, places = charges.name, self._places[charges.name]
        rows = np.array(sorted(self._means[name]), dtype=np.int64)
        values = np.stack([self._means[name][row] for row in rows])
        usual, own = record.column("lr", rows), record.rules(rows) or {}
        rule = charges.index["rule"].to_numpy() if own and "rule" in charges.index else None
        off, square, reason = self.running.errors(record, charges)
        out = []
        for number, site in enumerate(places.sites):
            here, value = places.codes == number, values[:, number]
            lr = usual if rule is None or (rule[here] < 0).any() else own["lr"][:, rule[here][0]]
            rate = np.divide(lr, value, out=np.full(len(lr), np.nan), where=value > 0) if name == "scale" else None
            known = here & np.isfinite(off)
            size = square[known].sum()
            error = float(np.sqrt(off[known].sum() / size)) if size > 0 else np.nan
            why = "" if known.any() else reason
            out.append(SiteGlance(name, str(site), int(here.sum()), value, rate, error, why))
        return out


class _Places:
    """Which site each charge of a family belongs to, and which are of a matrix's diagonal."""

    def __init__(self, index: pd.DataFrame) -> None:
        self.codes, self.sites = pd.factorize(index["site"])
        self._kept = diagonal(index)
        self._counts = np.maximum(np.bincount(self.codes[self._kept], minlength=len(self.sites)), 1)

    def means(self, value: Float64[Array, " charges"]) -> Float64[Array, " sites"]:
        """Mean of the charges of each site; of a matrix over its diagonal."""
        at = self.codes[self._kept]
        return np.bincount(at, weights=value[self._kept], minlength=len(self.sites)) / self._counts


def _means(column: Float64[Array, " rows"], parts: int) -> Float64[Array, " points"]:
    """Means over `parts` parts of a column, of the numbers that are finite; empty if there are none."""
    if not np.isfinite(column).any():
        return np.empty(0)
    found = [part[np.isfinite(part)] for part in np.array_split(column, min(parts, len(column)))]
    return np.array([part.mean() if len(part) else np.nan for part in found])


def _total(record: Record) -> int | None:
    steps = _group(record, "train").get("steps")
    return steps if isinstance(steps, int) and not isinstance(steps, bool) else None


def _about(record: Record) -> str:
    names = [_group(record, group).get("name") for group in ("model", "data")]
    named = " on ".join(str(name) for name in names if name)
    return ", ".join(part for part in (named, str(record.rule["name"])) if part)


def _group(record: Record, name: str) -> dict[str, Any]:
    return record.config.get(name) or {}
