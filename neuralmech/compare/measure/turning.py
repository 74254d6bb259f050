"""How charges of normalised weights turn over a stretch of a run: means of what the equilibrium is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from neuralmech.compare.measure.inputs import ChargeClass
from neuralmech.compare.measure.views import Family, InMetric
from neuralmech.laws.equilibrium import Equilibrium
from neuralmech.laws.system import Array

Steps = Mapping[str, NDArray]
TINY = 1e-300


@dataclass(frozen=True)
class Turning:
    """Means over a window, per charge of a class, and what is predicted of them.

    Attributes
    ----------
    angle
        √⟨φ²⟩ with φ the angle between θ_k and θ_{k+1}.
    charge, squared, drive, unit_drive, gradient
        ⟨Q⟩, ⟨Q²⟩, ⟨D⟩, ⟨DQ⟩, ⟨G⟩.
    drift
        τ(ln Q)', in Adam's metric without what the metric's own motion does to Q.
    entries
        Number of parameters of each charge; NaN where the record does not say.
    lr, weight_decay
        η and κλ, the same all along.
    times
        Length of the run in relaxation times τ.
    law
        Of the equilibrium.
    decoupled
        Whether weight decay acts on the parameters directly.
    """

    angle: Array
    charge: Array
    squared: Array
    drive: Array
    unit_drive: Array
    gradient: Array
    drift: Array
    entries: Array
    lr: float
    weight_decay: float
    times: float
    law: Equilibrium
    decoupled: bool

    @property
    def alive(self) -> Bool[NDArray, " charges"]:
        """Which charges' drive is nearer to its equilibrium value than to λ²Q, the decay's own, on a logarithmic scale.

        Of SGD the drive of the gradient, as D has what decay has left in the buffer; of others D itself.
        """
        drive, share = (self.drive, self.law.turn) if self.decoupled else (self.gradient, self.law.friction)
        balanced = 2 * share / (self.lr * self.weight_decay)  # drive/(λ²Q) at equilibrium
        return drive > np.sqrt(balanced) * self.weight_decay**2 * self.charge

    @property
    def predicted(self) -> float:
        r"""φ\*."""
        return float(np.sqrt(2 * self.lr * self.weight_decay * self.law.turn))

    @property
    def radius(self) -> Array:
        r"""Q over Q\* = ηD/(2λ·turn)."""
        scale = self.lr / (2 * self.weight_decay * self.law.turn)
        if self.law.length is None:  # DQ does not depend on Q
            return np.sqrt(self.squared / np.maximum(scale * self.unit_drive, TINY))
        return self.charge / np.maximum(scale * self.law.length * self.entries, TINY)

    @property
    def update(self) -> Array:
        """D over its predicted value; NaN where there is none."""
        length = np.nan if self.law.length is None else self.law.length
        return self.drive / np.maximum(length * self.entries, TINY)


def turning(charges: Family, of: ChargeClass, law: Equilibrium, steps: Steps, rows: slice, block: int) -> Turning:
    """Measure the charges of a class over some rows, of which `steps` are the columns.

    |Δθ|² = η²D = (|θ_{k+1}| − |θ_k|)² + 4|θ_k||θ_{k+1}| sin²(φ/2). In the metric the same, with D that of the rule's
    update without decay and θ_{k+1}/(1 − ηλ), which is what that update leads to and has the same direction.
    """
    lr, decay = float(steps["lr"][0]), float(steps["weight_decay"][0]) * of.decay
    columns = np.arange(len(charges))[of.columns]
    total, count = np.zeros((7, len(columns))), 0
    for start in range(rows.start, rows.stop - 1, block):
        part = slice(start, min(start + block, rows.stop - 1))
        now, then, drive, gradient = (a[:, columns] for a in _read(charges, part))
        step, kept = (lr / (1 - lr * decay), 1 - lr * decay) if isinstance(charges, InMetric) else (lr, 1.0)
        moved = np.sqrt(then) / kept
        chord = step**2 * drive - (moved - np.sqrt(now)) ** 2  # 4|θ||θ'| sin²(φ/2)
        both = np.maximum(np.sqrt(now) * moved, TINY)
        half = np.clip(np.sqrt(np.maximum(chord, 0) / both) / 2, 0, 1)
        growth = np.log(np.maximum(then, TINY) / np.maximum(now, TINY))
        means = ((2 * np.arcsin(half)) ** 2, now, now**2, drive, drive * now, gradient, growth)
        total += np.stack([m.sum(axis=0) for m in means])
        count += len(now)
    square, charge, squared, drive, unit_drive, gradient, growth = total / count
    relaxation = law.friction / (2 * lr * decay)
    index, unknown = charges.index, np.full(len(charges), np.nan)
    return Turning(
        angle=np.sqrt(square),
        charge=charge,
        squared=squared,
        drive=drive,
        unit_drive=unit_drive,
        gradient=gradient,
        drift=growth * relaxation,
        entries=(index["entries"].to_numpy() if "entries" in index else unknown)[columns],
        lr=lr,
        weight_decay=decay,
        times=float(steps["step"][-1] + 1) / relaxation,
        law=law,
        decoupled=of.circumstances.decoupled,
    )


def _read(charges: Family, rows: slice) -> tuple[Array, Array, Array, Array]:
    """Charges before and after each step, D and G."""
    gradient = charges.drive_gradient[rows]
    if isinstance(charges, InMetric):
        return charges.value[rows], charges.metric_carried[rows], charges.metric_drive[rows], gradient
    value = charges.value[rows.start : rows.stop + 1]
    return value[:-1], value[1:], charges.drive_update[rows], gradient
