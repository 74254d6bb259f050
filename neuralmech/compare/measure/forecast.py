"""What the charges of a run will do after a change of learning rate or weight decay, from one row and drives before it.

The discrete law runs on from the row with the mean drive of a window behind it. Of normalised weights the drive on the
unit sphere, D̂ = DQ, does not depend on their length (Noether's learning dynamics), so that D = D̂/Q follows the charge;
drives of other families are taken to stay as they are, and translation charges have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from neuralmech.compare.measure.inputs import ChargeClass, classes
from neuralmech.errors import UserError
from neuralmech.laws import LAWS
from neuralmech.laws.system import Array, Hyperparameters
from neuralmech.record import Charges, Record, RecordError

COLUMNS = (
    "family", "site", "charges", "now", "predicted", "low", "high", "effective_lr", "measured", "error", "reason",
)  # fmt: skip
PARTS = 8  # of the window; the spread of the drive's means over them is the band


@dataclass(frozen=True)
class ForecastPlan:
    """From where, with what and how far.

    Attributes
    ----------
    row
        Row of the record whose charges are known; the window ends there.
    window
        Rows whose mean drive is taken.
    lr, weight_decay
        After the row.
    steps
        How many.
    """

    row: int
    window: int
    lr: float
    weight_decay: float
    steps: int


def plan_of(
    record: Record,
    steps: int,
    lr: float | None = None,
    weight_decay: float | None = None,
    at: int | None = None,
    window: int | None = None,
) -> ForecastPlan:
    """What is to be forecast, from the last row unless `at` names another step, with what the run had where not told.

    Raises
    ------
    UserError
        If a number is impossible, or the record has no such step.
    RecordError
        If the record has too few rows.
    """
    _check({"steps": steps, "at": at, "window": window}, {"optim.lr": lr, "optim.weight_decay": weight_decay})
    if record.rows < PARTS + 1:
        raise RecordError(f"{record.path} holds {record.rows} rows; a forecast needs {PARTS + 1} or more")
    row = record.rows - 1
    if at is not None:
        steps_there = record.column("step")
        found = np.flatnonzero(steps_there == at)
        if not len(found):
            raise UserError(f"at={at} is no recorded step; the record has {steps_there[0]} to {steps_there[-1]}")
        row = int(found[0])
    length = max(PARTS, row // 10) if window is None else window
    if length < PARTS or length > row:
        there = f"{PARTS} to {row}" if row >= PARTS else "too few"
        raise UserError(f"window={length} rows before the step are not there; {there} are")
    now = {name: float(record.column(name, slice(row, row + 1))[0]) for name in ("lr", "weight_decay")}
    changed = {"lr": lr, "weight_decay": weight_decay}
    then = {name: now[name] if value is None else value for name, value in changed.items()}
    return ForecastPlan(row, length, then["lr"], then["weight_decay"], steps)


def _check(counts: Mapping[str, Any], rates: Mapping[str, Any]) -> None:
    """Raise a `UserError` for what is no number of its kind; `steps` alone must be there."""
    for key, value in rates.items():
        if value is not None and (isinstance(value, bool | str) or not 0 <= value < float("inf")):
            raise UserError(f"{key}={value} must not be negative")
    for key, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UserError(f"{key}={value} must be a whole number, 1 or more")
    if counts["steps"] is None:
        raise UserError("steps=null says not how far; give a number of steps")


def forecast(record: Record, plan: ForecastPlan) -> pd.DataFrame:
    """One row per family and site: means over its charges now, predicted with a band, and measured if the run went on.

    ``error`` is the RMS over the charges of predicted − measured, relative to the RMS of measured, where the record
    holds the step with the hyperparameters of the plan all along. ``effective_lr`` is η/Q after it, of scale charges.
    """
    rows = []
    for family in record.families:
        charges = record.charges(family)
        for of in classes(record, charges):
            why = _reason(of)
            columns = np.arange(len(charges))[of.columns]
            sites = charges.index["site"].to_numpy()[columns]
            if why:
                rows += [(family, s, int((sites == s).sum()), *[np.nan] * 7, why) for s in dict.fromkeys(sites)]
                continue
            now, paths = _predicted(record, charges, of, plan)
            measured = _measured(record, charges, plan)
            truth = np.full(len(columns), np.nan) if measured is None else measured[of.columns]
            for site in dict.fromkeys(sites):
                here = sites == site
                middle, low, high = (path[here] for path in paths)
                size = np.sqrt(np.mean(truth[here] ** 2))
                off = np.sqrt(np.mean((middle - truth[here]) ** 2)) / size if size > 0 else np.nan
                effective = plan.lr / middle.mean() if family == "scale" else np.nan
                bounds = sorted((low.mean(), high.mean()))
                means = (now[here].mean(), middle.mean(), *bounds, effective, truth[here].mean())
                rows.append((family, site, int(here.sum()), *means, off, ""))
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _reason(of: ChargeClass) -> str:
    c = of.circumstances
    if c.optimizer not in ("sgd", "sgdw"):
        return f"not derived for {c.optimizer or 'two rules'}"
    if of.rule >= 0:
        return "its group has a schedule of its own"
    if c.nesterov:
        return "not derived for Nesterov momentum"
    if c.mixed:
        return "its parameters decay at different rates"
    return "" if c.every_step else "needs the drives of every step"


def _predicted(
    record: Record, charges: Charges, of: ChargeClass, plan: ForecastPlan
) -> tuple[Float64[Array, " charges"], list[Float64[Array, " charges"]]]:
    """Charges at the row, and after the plan with the drive's mean, and with less and more than that."""
    translation, row = charges.is_translation, plan.row
    h = of.hyperparameters(_steady(record, row, None))
    after = of.hyperparameters(_steady(record, row, plan))
    value = charges.value[row - 1 : row + 1][:, of.columns]
    on_sphere = charges.name == "scale"
    if translation:
        mean = spread = np.zeros(value.shape[1])
        last = np.zeros(value.shape[1])
    else:
        window = slice(row - plan.window, row)
        drive = charges.drive_update[window][:, of.columns]
        if on_sphere:
            drive = drive * charges.value[window][:, of.columns]
        parts = np.stack([part.mean(axis=0) for part in np.array_split(drive, PARTS)])
        mean, spread = drive.mean(axis=0), parts.std(axis=0, ddof=1) / np.sqrt(PARTS)
        last = charges.drive_update[row - 1][of.columns]
    memory = _memory(h, value, last, translation=translation)
    start, drives = np.stack([value[1], memory]), (mean, mean - 2 * spread, mean + 2 * spread)
    run = [_run(after, start, drive, plan.steps, on_sphere, translation=translation) for drive in drives]
    return value[1], run


def _steady(record: Record, row: int, plan: ForecastPlan | None) -> Hyperparameters:
    at = slice(row - 1, row)
    lr, decay = (float(record.column(n, at)[0]) for n in ("lr", "weight_decay"))
    if plan is not None:
        lr, decay = plan.lr, plan.weight_decay
    momentum, decoupled = float(record.column("momentum", at)[0]), bool(record.column("decoupled", at)[0])
    return Hyperparameters.steady(lr, momentum, decay, decoupled=decoupled)


def _memory(h: Hyperparameters, value: Array, drive: Array, *, translation: bool) -> Array:
    """What the momentum buffer holds at the second of two rows, by the step between them."""
    phi, gamma = (m[0] for m in LAWS["discrete"].matrices(h, translation=translation))
    pushed = np.zeros_like(drive) if translation else gamma[:, :1] * drive
    if phi[0, 1] == 0:
        return np.zeros_like(drive)
    before = (value[1] - phi[0, 0] * value[0] - (0 if translation else pushed[0])) / phi[0, 1]
    return phi[1, 0] * value[0] + phi[1, 1] * before + (0 if translation else pushed[1])


def _run(
    h: Hyperparameters, state: Array, drive: Array, steps: int, on_sphere: bool, *, translation: bool
) -> Float64[Array, " charges"]:
    """Charges after some steps of the discrete law from (Q, P), with D = drive, or drive/Q on the sphere."""
    phi, gamma = (m[0] for m in LAWS["discrete"].matrices(h, translation=translation))
    for _ in range(steps):
        moving = phi @ state
        if not translation:
            moving += gamma[:, :1] * (drive / np.maximum(state[0], 1e-300) if on_sphere else drive)
        state = moving
    return state[0]


def _measured(record: Record, charges: Charges, plan: ForecastPlan) -> Array | None:
    """Charges after the plan, if the run went on with its hyperparameters; None if it did not."""
    end = plan.row + plan.steps
    if end >= record.rows:
        return None
    rows = slice(plan.row, end)
    went = {"lr": plan.lr, "weight_decay": plan.weight_decay}
    if not all(np.allclose(record.column(name, rows), value, rtol=1e-6, atol=0) for name, value in went.items()):
        return None
    return charges.value[end]
