"""What laws take from a record: hyperparameters, drives, and the circumstances under which they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from neuralmech.compare.measure.views import Family, InMetric
from neuralmech.laws.system import Array, Circumstances, Hyperparameters
from neuralmech.record import Record, RecordError

ONE_FOR_ALL = slice(None)


@dataclass(frozen=True)
class ChargeClass:
    """Charges of a family that laws do not tell apart.

    Attributes
    ----------
    columns
        Which they are.
    circumstances
        What laws must know of them.
    decay
        κ: their parameters decay at the rate κηλ; 1 where they do so at several, and what decays is recorded.
    rounds_decay
        Whether θ is multiplied by 1 − κηλ rounded to float32, which is off by up to 3·10⁻⁸/κηλ of the decay.
    momentum
        β of their rule, where rules differ in it; None if it is the run's.
    rule
        Its number, where rules have schedules of their own; −1 where they have none, or several move the charges.
    """

    columns: slice | NDArray[np.int64]
    circumstances: Circumstances
    decay: float = 1.0
    rounds_decay: bool = False
    momentum: float | None = None
    rule: int = -1

    def hyperparameters(self, h: Hyperparameters) -> Hyperparameters:
        """Those of a run, with λ as these charges have it: times κ, and as a factor 1 − ηλ in float32 realises it."""
        h = h.under(self.rule)
        if self.momentum is not None:
            h = replace(h, momentum=np.full_like(h.momentum, self.momentum))
        decay = h.weight_decay * self.decay
        if self.rounds_decay:
            realised = (1 - np.float64(np.float32(1 - h.lr * decay))) / np.where(h.lr > 0, h.lr, 1.0)
            decay = np.where(h.decoupled & (h.lr > 0), realised, decay)
        return replace(h, weight_decay=decay)


def circumstances(record: Record, charges: Family) -> Circumstances:
    """What laws must know of a run to say whether they hold for a family of charges, all of one class."""
    optim, in_metric = record.config.get("optim", {}), isinstance(charges, InMetric)
    derived = (name for name, of in DERIVED.items() if set(of.made_of) <= set(charges.signals))
    return Circumstances(
        family=charges.name,
        translation=charges.is_translation,
        signals=(*charges.signals, *derived),
        optimizer=str(record.rule.get("name", "sgd")),
        momentum="momentum" in record.in_use,
        dampening="dampening" in record.in_use,
        nesterov="nesterov" in record.in_use,
        decoupled=bool(record.rule["decoupled"]),
        ascent=bool(optim.get("sam_rho")),
        clipped=optim.get("clip_norm") is not None or optim.get("clip_value") is not None,
        metric=in_metric,
        every_step=(record.config.get("track") or {}).get("every", 1) == 1,
    )


def classes(record: Record, charges: Family) -> list[ChargeClass]:
    """The classes of a family: one, unless rules or decay differ from parameter to parameter."""
    c, index = circumstances(record, charges), charges.index
    if "decay" not in index and "rule" not in index:
        return [ChargeClass(ONE_FOR_ALL, c, rounds_decay=bool(record.rule["rounds_decay"]))]
    parts, momenta = record.rule.get("parts", []), record.rule.get("momenta", [])
    kappa = index["decay"].to_numpy() if "decay" in index else np.ones(len(index))
    rule = index["rule"].to_numpy() if "rule" in index else np.zeros(len(index), dtype=np.int64)
    out, apart = [], record.rules()
    for number, decay in dict.fromkeys(zip(rule.tolist(), [None if np.isnan(k) else k for k in kappa], strict=True)):
        columns = np.flatnonzero((rule == number) & (np.isnan(kappa) if decay is None else kappa == decay))
        name = c.optimizer if not parts else str(parts[number]) if 0 <= number < len(parts) else ""
        beta = float(momenta[number]) if 0 <= number < len(momenta) else None
        own = replace(c, optimizer=name, mixed=decay is None, momentum=c.momentum if beta is None else beta > 0)
        if apart is not None and number >= 0:
            own = replace(own, **{n: bool(apart[n][:, number].any()) for n in ("momentum", "dampening", "nesterov")})
        kappa_of, rounds = (1.0, False) if decay is None else (float(decay), bool(record.rule["rounds_decay"]))
        out.append(ChargeClass(columns, own, kappa_of, rounds, beta, -1 if apart is None else number))
    return out


def resting(record: Record, charges: Family, block: int = 1024) -> Bool[NDArray, " charges"]:
    """Which charges start at zero and move by rounding alone: (charges,).

    Gradients of order one, rounded to ε, move a linear charge by up to ε∫dt; ten times that is the bound here, for
    quadratic charges its square. A charge that stays below it was never anything but rounding.
    """
    bound = rounding(record, charges)
    still = np.abs(charges.value[0]) <= bound
    for start in range(0, record.rows if still.any() else 0, block):
        still &= np.abs(charges.value[start : start + block]).max(axis=0) <= bound
    return still


def resting_sites(record: Record, charges: Family, block: int = 1024) -> set[str]:
    """Sites of which at least half of the charges start at zero and move by rounding alone.

    Where gradients are larger than of order one, some of a site's charges come to lie above the bound of `resting`.
    """
    rests = pd.Series(resting(record, charges, block)).groupby(charges.index["site"].to_numpy()).mean()
    return set(rests.index[rests >= MOSTLY])


MOSTLY = 0.5


def rounding(record: Record, charges: Family) -> float:
    """How far rounding alone may move a charge that starts at zero, see `resting`; −1 where that does not matter."""
    return -1.0 if isinstance(charges, InMetric) else of_parameters(record) ** (1 if charges.is_translation else 2)


def of_parameters(record: Record) -> float:
    """How far rounding alone may move a parameter of order one over a record, see `resting`."""
    epsilon = _EPSILON.get(str((record.config.get("train") or {}).get("precision", "fp32")), _EPSILON["bf16"])
    elapsed = float(record.column("time", slice(record.rows - 1, None))[0])  # before the last row's own step
    return 10 * epsilon * max(1.0, elapsed)


_EPSILON = {"fp64": 2.0**-52, "fp32": 2.0**-23, "tf32": 2.0**-10, "bf16": 2.0**-7, "fp16": 2.0**-10}


def set_apart(of: list[ChargeClass], still: Bool[NDArray, " charges"]) -> list[ChargeClass]:
    """Classes of which none has both charges at rest and others."""
    out = []
    for one in of:
        columns = np.arange(len(still))[one.columns]
        for resting in (False, True):
            if len(mine := columns[still[columns] == resting]):
                own = one.columns if len(mine) == len(columns) else mine
                circumstances = replace(one.circumstances, resting=resting)
                out.append(replace(one, columns=own, circumstances=circumstances))
    return out


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

    def following(self, charges: Family) -> Float64[Array, " charges"] | None:
        """Charges at the second row of a window that begins here, in the middle of the run; None otherwise."""
        if not self.begins or self.is_start:
            return None
        return charges.value[min(self.rows.start + 1, self.window.stop - 1)]


def stretches(record: Record, size: int, begin: int = 0, end: int | None = None) -> Iterator[Stretch]:
    """Cover a record, or its rows from `begin` to `end`, by stretches of up to `size`, none of which spans a gap."""
    end = record.rows if end is None else end
    for window in record.windows:
        first = slice(window.start, window.start + 1)
        untouched = record.column("step", first) == record.column("skipped", first)
        is_start = bool((untouched & (record.column("segment", first) == 0)).all())
        stop = min(window.stop, end)
        for start in range(max(window.start, begin), stop, size):
            yield Stretch(slice(start, min(start + size, stop)), window, is_start)


COLUMNS = (
    "step", "time", "lr", "momentum", "dampening", "weight_decay", "nesterov", "decoupled", "batch_size", "skipped",
    "segment",
)  # fmt: skip


def hyperparameters(record: Record, stretch: Stretch) -> Hyperparameters:
    """Hyperparameters of some rows of a record.

    Raises
    ------
    RecordError
        If the steps do not increase, or more are skipped than there are.
    """
    rows = stretch.rows
    end = rows.stop + (not stretch.ends)  # the row after the last says how far it spans
    ahead = record.steps(rows.start, end, COLUMNS)
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
    def lasting(time: NDArray, lr: NDArray) -> NDArray:
        mean = np.append(np.diff(time, axis=0) / gaps, lr[len(gaps) :])
        return np.where(span == 1, lr, mean)

    return Hyperparameters(
        lr=lasting(ahead["time"], columns["lr"]),
        momentum=columns["momentum"],
        dampening=columns["dampening"],
        weight_decay=columns["weight_decay"],
        nesterov=columns["nesterov"].astype(bool),
        span=span,
        first=(columns["step"] == columns["skipped"]) & (columns["segment"] == 0),  # none before it was taken
        decoupled=columns["decoupled"].astype(bool),
        batch_size=columns["batch_size"],
        updates=columns["step"] - columns["skipped"],
        of_rules=_of_rules(record, rows, ahead["step"], lasting),
    )


def _of_rules(
    record: Record, rows: slice, steps: NDArray, lasting: Callable[[NDArray, NDArray], NDArray]
) -> dict[str, Array] | None:
    """Hyperparameters under each rule, with η as it lasts to the next row."""
    found = record.rules(slice(rows.start, rows.start + len(steps)))
    if found is None:
        return None
    times, count = found.pop("time"), rows.stop - rows.start
    own = {name: values[:count] for name, values in found.items()}
    pairs = zip(times.T, own["lr"].T, strict=True)
    return {**own, "lr": np.stack([lasting(time, lr) for time, lr in pairs], axis=1)}


def _unit_drive(record: Record, charges: Family, stretch: Stretch) -> Array:
    return charges.drive_update[stretch.rows] * charges.value[stretch.rows]


def _metric_drift(record: Record, charges: Family, stretch: Stretch) -> Array:
    """Of the step to the next row; nobody asks for that of a window's last."""
    rows = stretch.rows
    after = charges.value[rows.start + 1 : min(rows.stop + 1, stretch.window.stop)]
    drift = np.zeros((rows.stop - rows.start, len(charges)))
    drift[: len(after)] = after - charges.metric_carried[rows][: len(after)]
    return drift


def _residual_of_ascent(record: Record, charges: Family, stretch: Stretch) -> Array:
    rho, norm = record.config["optim"]["sam_rho"], record.column("ascent_norm", stretch.rows)
    return -rho / np.maximum(norm, 1e-300)[:, None] * charges.drive_ascent[stretch.rows]


class Derived(NamedTuple):
    """A signal that is made of recorded ones, and how."""

    made_of: tuple[str, ...]
    make: Callable[[Record, Family, Stretch], Array]


DERIVED = {
    "unit_drive": Derived(("drive_update", "value"), _unit_drive),
    "metric_drift": Derived(("metric_value", "metric_carried"), _metric_drift),
    "residual_of_ascent": Derived(("drive_ascent",), _residual_of_ascent),
}


def signal(record: Record, charges: Family, name: str, stretch: Stretch) -> Float64[Array, "rows charges"]:
    """A recorded signal, or one made of recorded ones."""
    if name in DERIVED:
        return DERIVED[name].make(record, charges, stretch)
    return getattr(charges, name)[stretch.rows]
