"""Phase portraits: charges and their velocities between consecutive rows, measured and by the modified flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from neuralmech.compare.measure.curves import spread
from neuralmech.compare.measure.inputs import (
    ChargeClass,
    classes,
    hyperparameters,
    resting,
    set_apart,
    signal,
    stretches,
)
from neuralmech.compare.measure.oscillator import both_ends
from neuralmech.laws import LAWS
from neuralmech.laws.integration import Integration
from neuralmech.laws.oscillator import Oscillator, oscillator
from neuralmech.laws.system import Array
from neuralmech.record import Charges, Record

LAW = "modified_flow"
FALL = 6.0  # relaxation times that a portrait shows: what is left then is a point
POINTS = 2000


@dataclass(frozen=True)
class PhaseCurve:
    """Some charges of one family in the plane of Q and Q', at the middle between a row and the next.

    Attributes
    ----------
    family, oscillator
        Of the charges; the latter at the first recorded step, or at the last if there was no spring.
    value, velocity
        (Q_k + Q_{k+1})/2 and (Q_{k+1} − Q_k)/(t_{k+1} − t_k) as measured; NaN where a window of the record begins.
    theory_value, theory_velocity
        The same of the law's charges.
    """

    family: str
    oscillator: Oscillator
    value: Float64[Array, "points charges"]
    velocity: Float64[Array, "points charges"]
    theory_value: Float64[Array, "points charges"]
    theory_velocity: Float64[Array, "points charges"]


def phase_curves(record: Record, lines: int = 6, block: int = 1024) -> list[PhaseCurve]:
    """Return the portraits of all families that have one."""
    curves = (phase_curve(record, family, lines, block) for family in record.families)
    return [curve for curve in curves if curve is not None]


def phase_curve(record: Record, family: str, lines: int = 6, block: int = 1024) -> PhaseCurve | None:
    """Follow up to `lines` charges for `FALL` relaxation times; None where none of them would be worth it.

    Translation charges need a spring; their law is a forecast from the start alone. Others have to oscillate:
    over-damped, they follow every jump of their drive, which makes a scribble.
    """
    charges = record.charges(family)
    for of in set_apart(classes(record, charges), resting(record, charges, block)) if record.rows > 1 else []:
        if LAWS[LAW].reason(of.circumstances):
            continue
        ends = [oscillator(of.hyperparameters(h), translation=charges.is_translation) for h in both_ends(record)]
        swinging = [o for o in ends if o.ratio[0] < (np.inf if charges.is_translation else 1)]
        own = np.arange(len(charges))[of.columns]
        if not swinging or not len(own):
            continue
        chosen = own[spread(charges.value[0][own], lines)]
        step = record.column("step")
        span = FALL * max(float(o.relaxation[0]) for o in swinging)
        stop = max(2, int(np.searchsorted(step, step[0] + span, side="right")))
        kept = np.unique(np.linspace(0, stop - 2, min(POINTS, stop - 1)).astype(np.int64))
        curve = PhaseCurve(family, swinging[0], *_followed(record, charges, of, chosen, kept, block))
        return curve if np.isfinite(curve.velocity).any() else None
    return None


def _followed(
    record: Record,
    charges: Charges,
    of: ChargeClass,
    chosen: Int64[NDArray, " chosen"],
    kept: Int64[NDArray, " kept"],
    block: int,
) -> list[Array]:
    """Value and velocity behind the kept rows, measured and by the law run along the record: (points, chosen) each."""
    time = record.column("time")
    names = LAWS[LAW].signals(of.circumstances)
    run = Integration(LAWS[LAW], translation=charges.is_translation, signals=names)
    values: list[Array] = []
    velocities: list[Array] = []
    carried = np.empty((2, 0, len(chosen)))  # the last row of the block before, measured and by the law
    for stretch in stretches(record, block):
        rows = stretch.rows
        if rows.start > kept[-1] + 1:
            break
        measured, inputs = charges.value[rows][:, chosen], np.empty((rows.stop - rows.start, len(names), len(chosen)))
        for i, name in enumerate(names):
            inputs[:, i] = signal(record, charges, name, stretch)[:, chosen]
        following = stretch.following(charges)
        ahead = None if following is None else following[chosen]
        theory = run.advance(of.hyperparameters(hyperparameters(record, stretch)), measured[0], inputs, ahead)
        both = np.concatenate([carried[:, : 0 if stretch.begins else 1], [measured, theory]], axis=1)
        carried = both[:, -1:]
        first = rows.stop - both.shape[1]
        at = kept[(kept >= first) & (kept < rows.stop - 1)]
        before, after, span = both[:, at - first], both[:, at - first + 1], (time[at + 1] - time[at])[:, None]
        gap = np.full((2, int(stretch.begins and rows.start > 0), len(chosen)), np.nan)
        values += [gap, (before + after) / 2]
        velocities += [gap, np.divide(after - before, span, out=np.full_like(before, np.nan), where=span > 0)]
    value, velocity = np.concatenate(values, axis=1), np.concatenate(velocities, axis=1)
    return [value[0], velocity[0], value[1], velocity[1]]
