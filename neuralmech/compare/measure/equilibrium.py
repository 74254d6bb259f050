"""How near normalised weights are to the equilibrium between weight decay and the finite learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuralmech.compare.measure.inputs import ChargeClass, classes
from neuralmech.compare.measure.turning import Steps, Turning, turning
from neuralmech.compare.measure.views import METRIC, Family, families, family
from neuralmech.laws.equilibrium import Equilibrium, equilibrium
from neuralmech.laws.system import Array
from neuralmech.record import Record

FAMILY = "scale"
NEAR = 0.05  # a filter whose angular step is this near to the predicted one is at its equilibrium
EXPLAINED = 0.02  # and if it is this near to √(1 + drift) times that one, the drift says why it is not
SHARE = 4  # the last 1/SHARE of the run is looked at
COLUMNS = (
    "family", "site", "charges", "alive", "relaxation_times", "angular_step", "predicted_step", "ratio",
    "worst_ratio", "within", "drift", "radius_ratio", "update_ratio", "reason",
)  # fmt: skip


def equilibrium_table(record: Record, block: int = 1024) -> pd.DataFrame:
    r"""Angular step and radius of every scale site over the last quarter of a run, against theory.

    At equilibrium 2ηλQ\* = η²D/turn, and θ turns by φ\* = √(2ηλ·turn) per step, with turn a number of the rule (see
    `laws.equilibrium`; for SGD 1/(1+β), Tanaka & Kunin 2021; for AdamW (1−β₁)/(1+β₁), Kosson et al. 2023).

    The balance needs a stationary drive: by (φ/φ\*)² = 1 + τ(ln Q)' with the relaxation time τ, the angular step is off
    by half the drift where the drive grows or dies out. For SGD and in Adam's metric this is all, as gradients are
    orthogonal to the weights there; elsewhere they must be without correlations too.

    Returns
    -------
    pandas.DataFrame
        One row per site, and under AdamW another for its charges in the metric: ``alive`` counts charges that still
        receive gradient (see `Turning.alive`), over which the other numbers are taken;
        ``relaxation_times`` is the run's length in units of τ; ``angular_step`` the RMS angle,
        ``ratio`` and ``worst_ratio`` (of the charge farthest off) are measured over predicted, ``within`` the
        share of charges whose step is within 5 % of the predicted one, and ``drift`` is τ(ln Q)' of the charge
        farthest off; ``radius_ratio`` is Q over Q\*, and where the rule says how long its updates are
        ``update_ratio`` D over that. Where theory says nothing, or charges are not at their equilibrium, ``reason``
        says why.
    """
    if FAMILY not in record.families or record.rows < 8:
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    rows = []
    for name in (FAMILY, FAMILY + METRIC):
        if name in families(record):
            charges = family(record, name)
            rows += [row for of in classes(record, charges) for row in _rows(record, charges, of, block)]
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _rows(record: Record, charges: Family, of: ChargeClass, block: int) -> list[dict[str, object]]:
    """A row for each site of a class."""
    sites = charges.index["site"].to_numpy()[of.columns]
    members = {site: np.flatnonzero(sites == site) for site in dict.fromkeys(sites)}
    law = equilibrium(of.circumstances, _options(record, of))
    rows = slice(record.rows - record.rows // SHARE, record.rows)
    steps = record.steps(rows.start)
    if of.rule >= 0 and (own := record.rules(rows)) is not None:
        steps |= {name: values[:, of.rule] for name, values in own.items()}
    reason = law if isinstance(law, str) else _reason(charges, of, law, steps)
    if isinstance(law, str) and of.circumstances.metric:
        return []  # the rows of the plain charges say so
    if isinstance(law, str) or reason:
        unknown = dict.fromkeys(COLUMNS[3:-1], np.nan)
        found = {site: {"charges": len(m), **unknown, "reason": reason} for site, m in members.items()}
    else:
        means = turning(charges, of, law, steps, rows, block)
        found = {site: _row(m, means) for site, m in members.items()}
    return [{"family": charges.name, "site": site, **row} for site, row in found.items()]


def _options(record: Record, of: ChargeClass) -> dict[str, Any]:
    """The rule's numbers: of SGD those of the last step, of others those that it was made with."""
    c, own = of.circumstances, record.rule.get("options")
    given = {**(record.config.get("optim") or {}), **(own if isinstance(own, dict) else {})}
    if c.optimizer in ("sgd", "sgdw"):
        last = slice(record.rows - 1, record.rows)
        mine = record.rules(last) if of.rule >= 0 else None
        given["momentum"] = record.column("momentum", last)[0] if mine is None else mine["momentum"][0, of.rule]
    return given


def _reason(charges: Family, of: ChargeClass, law: Equilibrium, steps: Steps) -> str:
    """Why the law cannot be tested on some rows; an empty string if it can."""
    missing = [signal for signal in ("drive_update", "drive_gradient") if signal not in charges.signals]
    if law.length is not None and "entries" not in charges.index:
        missing.append("the number of parameters of each charge")
    if missing:
        return f"the record lacks {missing[0]}"
    if not (steps["weight_decay"] * of.decay > 0).all():
        return "no equilibrium without weight decay"
    if any(np.ptp(steps[name]) > 0 for name in ("lr", "weight_decay")):
        return "the learning rate or weight decay still changes"
    return "needs every step" if (np.diff(steps["step"]) != 1).any() else ""


def _row(members: NDArray[np.int64], found: Turning) -> dict[str, object]:
    alive = members[found.alive[members]]
    row = {"charges": len(members), "alive": len(alive), "relaxation_times": found.times}
    if not len(alive):
        numbers = dict.fromkeys(COLUMNS[5:-1], np.nan)
        return {**row, **numbers, "reason": "no filter receives gradient: all only shrink"}
    ratios = found.angle[alive] / found.predicted
    off = np.abs(ratios - 1)
    farthest = np.argmax(np.abs(np.log(np.maximum(ratios, 1e-300))))
    too_short = f"only {found.times:.2g} relaxation times: not yet there" if found.times < 3 else ""
    return {
        **row,
        "angular_step": _rms(found.angle[alive]),
        "predicted_step": found.predicted,
        "ratio": _rms(ratios),
        "worst_ratio": float(ratios[farthest]),
        "within": float(np.mean(off <= NEAR)),
        "drift": float(found.drift[alive][farthest]),
        "radius_ratio": _rms(found.radius[alive]),
        "update_ratio": float(np.mean(found.update[alive])),
        "reason": too_short or _why_off(off > NEAR, ratios, found.drift[alive], found.law),
    }


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _why_off(off: NDArray[np.bool_], ratios: Array, drift: Array, law: Equilibrium) -> str:
    """How many living filters are not at their equilibrium, and of how many the drift of their charge says why."""
    if not off.any():
        return ""
    found = f"{off.sum()} of {len(off)} living filters off by more than {NEAR:.0%}"
    drifting = int((off & (np.abs(ratios - np.sqrt(np.maximum(1 + drift, 0))) <= EXPLAINED)).sum())
    causes = [f"for {drifting} the drive is not stationary and the charge drifts"] if drifting else []
    unknown = int(off.sum()) - drifting
    other = "the drift of the charge does not say why"
    if law.length is not None:  # the balance leaves nothing else
        other = "successive updates are not correlated as those of white gradients"
    causes += [f"for {unknown} {other}"] if unknown else []
    return f"{found}: {', '.join(causes)}"
