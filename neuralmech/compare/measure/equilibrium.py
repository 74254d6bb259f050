"""How near normalised weights are to the equilibrium between weight decay and the finite learning rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuralmech.compare.measure.inputs import circumstances
from neuralmech.laws import LAWS
from neuralmech.laws.system import Array
from neuralmech.record import Charges, Record

FAMILY = "scale"
NEAR = 0.05  # a filter whose angular step is this near to the predicted one is at its equilibrium
EXPLAINED = 0.02  # and if it is this near to √(1 + drift) times that one, the drift says why it is not
SHARE = 4  # the last 1/SHARE of the run is looked at
COLUMNS = (
    "family", "site", "charges", "alive", "relaxation_times", "angular_step", "predicted_step", "ratio",
    "worst_ratio", "within", "drift", "radius_ratio", "reason",
)  # fmt: skip


def equilibrium_table(record: Record, block: int = 1024) -> pd.DataFrame:
    r"""Angular step and radius of every scale site over the last quarter of a run, against theory.

    At equilibrium (Q²)' = 0, so Q\*² = η(1+β)D̂/2λ, and θ turns by √(2ηλ/(1+β)) per step (Noether's Learning
    Dynamics, Tanaka & Kunin 2021). The angle φ between θ_k and θ_{k+1} follows from
    |Δθ|² = η²D = (|θ_{k+1}| − |θ_k|)² + 4|θ_k||θ_{k+1}| sin²(φ/2).

    The balance needs a stationary drive. (1−β)Q' = −2λQ + η(1+β)D divided by 2λQ is (φ/φ*)² = 1 + τ(ln Q)' with the
    relaxation time τ: where the drive grows or dies out the charge drifts, and the angular step is off by half the
    drift.

    Returns
    -------
    pandas.DataFrame
        One row per site: ``alive`` counts charges that still receive gradient (G nearer to its equilibrium
        value than to λ²Q, the decay's own; on a logarithmic scale), over which the other numbers are taken;
        ``relaxation_times`` is the run's length in units of (1−β)/(2ηλ); ``angular_step`` the RMS angle,
        ``ratio`` and ``worst_ratio`` (of the charge farthest off) are measured over predicted, ``within`` the
        share of charges whose step is within 5 % of the predicted one, and ``drift`` is τ(ln Q)' of the charge
        farthest off; ``radius_ratio`` is Q over Q\*. Where theory says nothing, or charges are not at their
        equilibrium, ``reason`` says why.
    """
    if FAMILY not in record.families or record.rows < 8:
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    charges = record.charges(FAMILY)
    sites = charges.index["site"]
    reason = _reason(record, charges)
    if reason:
        rows = [(FAMILY, site, n, *[np.nan] * 9, reason) for site, n in sites.value_counts(sort=False).items()]
        return pd.DataFrame(rows, columns=pd.Index(COLUMNS))
    window = _measure(record, charges, slice(record.rows - record.rows // SHARE, record.rows), block)
    return pd.DataFrame([_row(site, np.flatnonzero(sites == site), window) for site in dict.fromkeys(sites)])


@dataclass(frozen=True)
class _Window:
    """Means over the window, per charge, and the constants of the run."""

    angle: Array  # √⟨φ²⟩
    charge: Array  # ⟨Q⟩
    squared: Array  # ⟨Q²⟩
    unit_drive: Array  # ⟨DQ⟩
    gradient: Array  # ⟨G⟩
    drift: Array  # τ(ln Q)' from the window's first row to its last
    lr: float
    momentum: float
    weight_decay: float
    steps: float

    @property
    def alive(self) -> NDArray[np.bool_]:
        balanced = 2 * (1 - self.momentum) / (self.lr * self.weight_decay)  # G/(λ²Q) at equilibrium
        return self.gradient > np.sqrt(balanced) * self.weight_decay**2 * self.charge


def _reason(record: Record, charges: Charges) -> str:
    c = circumstances(record, charges)
    noether = LAWS["noether"]
    if c.optimizer not in noether.optimizers:
        return noether.reason(c)
    if c.optimizer != "sgd" or c.nesterov or c.dampening:
        return "derived for SGD without Nesterov and dampening"
    missing = [signal for signal in ("drive_update", "drive_gradient") if signal not in charges.signals]
    if missing:
        return f"the record lacks {missing[0]}"
    columns = record.steps(record.rows - record.rows // SHARE)
    if not (columns["weight_decay"] > 0).all():
        return "no equilibrium without weight decay"
    if any(np.ptp(columns[name]) > 0 for name in ("lr", "weight_decay")):
        return "the learning rate or weight decay still changes"
    if (np.diff(columns["step"]) != 1).any():
        return "needs every step"
    return ""


def _measure(record: Record, charges: Charges, window: slice, block: int) -> _Window:
    steps = record.steps(window.start)
    lr = float(steps["lr"][0])
    total = np.zeros((5, len(charges)))
    count = 0
    for start in range(window.start, window.stop - 1, block):
        stop = min(start + block, window.stop - 1)
        value = charges.value[start : stop + 1]
        drive, gradient = charges.drive_update[start:stop], charges.drive_gradient[start:stop]
        now, then = value[:-1], value[1:]
        both = np.sqrt(now * then)
        chord = lr**2 * drive - (np.sqrt(then) - np.sqrt(now)) ** 2  # 4|θ||θ'| sin²(φ/2)
        half = np.clip(np.sqrt(np.maximum(chord, 0) / np.maximum(both, 1e-300)) / 2, 0, 1)
        angle = 2 * np.arcsin(half)
        total += np.stack([m.sum(axis=0) for m in (angle**2, now, now**2, drive * now, gradient)])
        count += stop - start
    angle, charge, squared, unit_drive, gradient = total / count
    momentum, decay = float(steps["momentum"][0]), float(steps["weight_decay"][0])
    first, last = (np.maximum(charges.value[row], 1e-300) for row in (window.start, window.stop - 1))
    drift = np.log(last / first) / count * (1 - momentum) / (2 * lr * decay)
    rest = lr, momentum, decay, float(steps["step"][-1] + 1)
    return _Window(np.sqrt(angle), charge, squared, unit_drive, gradient, drift, *rest)


def _row(site: str, columns: NDArray[np.int64], w: _Window) -> dict[str, object]:
    alive = columns[w.alive[columns]]
    predicted = np.sqrt(2 * w.lr * w.weight_decay / (1 + w.momentum))
    times = w.steps * 2 * w.lr * w.weight_decay / (1 - w.momentum)
    row = {"family": FAMILY, "site": site, "charges": len(columns), "alive": len(alive), "relaxation_times": times}
    if not len(alive):
        numbers = dict.fromkeys(COLUMNS[5:-1], np.nan)
        return {**row, **numbers, "reason": "no filter receives gradient: all only shrink"}
    ratios = w.angle[alive] / predicted
    off = np.abs(ratios - 1)
    farthest = np.argmax(np.abs(np.log(np.maximum(ratios, 1e-300))))
    squared = w.lr * (1 + w.momentum) * w.unit_drive[alive] / (2 * w.weight_decay)
    return {
        **row,
        "angular_step": float(np.sqrt(np.mean(w.angle[alive] ** 2))),
        "predicted_step": float(predicted),
        "ratio": float(np.sqrt(np.mean(ratios**2))),
        "worst_ratio": float(ratios[farthest]),
        "within": float(np.mean(off <= NEAR)),
        "drift": float(w.drift[alive][farthest]),
        "radius_ratio": float(np.sqrt(np.mean(w.squared[alive] / squared))),
        "reason": _why_off(off > NEAR, ratios, w.drift[alive]) if times >= 3 else _too_short(times),
    }


def _too_short(times: float) -> str:
    return f"only {times:.2g} relaxation times: not yet there"


def _why_off(off: NDArray[np.bool_], ratios: Array, drift: Array) -> str:
    """How many living filters are not at their equilibrium, and of how many the drift of their charge says why."""
    if not off.any():
        return ""
    found = f"{off.sum()} of {len(off)} living filters off by more than {NEAR:.0%}"
    drifting = int((off & (np.abs(ratios - np.sqrt(np.maximum(1 + drift, 0))) <= EXPLAINED)).sum())
    causes = [f"for {drifting} the drive is not stationary and the charge drifts"] if drifting else []
    unknown = int(off.sum()) - drifting
    causes += [f"for {unknown} the drift of the charge does not say why"] if unknown else []
    return f"{found}: {', '.join(causes)}"
