"""The charge as a damped harmonic oscillator: what momentum, learning rate and weight decay make of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuralmech.laws.flow import coefficients
from neuralmech.laws.system import Hyperparameters, PerRow

CRITICAL = 1e-3  # how near to one a damping ratio is one


class Oscillator(NamedTuple):
    """Q'' + 2γQ' + ω²Q = drive, in the time t = Σ η.

    Attributes
    ----------
    gamma, omega
        γ = (1 − β)/η(1 + β) and ω = √(4λ/η(1 + β)) (of a translation charge 2λ), in units of 1/t.
    ratio
        Damping ratio γ/ω; infinite without a spring.
    period
        2π/√(ω² − γ²) in steps; infinite where nothing oscillates.
    relaxation
        Steps in which the slower of the two motions falls by e.
    """

    gamma: PerRow
    omega: PerRow
    ratio: PerRow
    period: PerRow
    relaxation: PerRow

    @property
    def regime(self) -> list[str]:
        """Of each row."""
        return [_regime(r) for r in self.ratio]


def _regime(ratio: float) -> str:
    if np.isinf(ratio):
        return "no spring"
    if abs(ratio - 1) < CRITICAL:
        return "critically damped"
    return "over-damped" if ratio > 1 else "under-damped"


def oscillator(h: Hyperparameters, *, translation: bool) -> Oscillator:
    """The oscillator of some rows' hyperparameters, from the modified flow ½η(1+β)Q'' + (1−β)Q' + 2λQ = η(1+β)D.

    Decoupled weight decay has no spring: charges relax at the rate of decay and that of momentum.

    Examples
    --------
    >>> found = oscillator(Hyperparameters.steady(lr=0.02, momentum=0.99, weight_decay=0.032), translation=True)
    >>> found.regime, found.period.round(1).tolist()
    (['under-damped'], [252.8])
    """
    friction, stiffness, _ = coefficients(h, translation=translation)
    mass = h.lr * (1 + h.momentum) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        gamma = friction / (2 * mass)
        square = np.where(h.decoupled, 0.0, stiffness / mass)
        turning = square - gamma**2
        period = np.where(turning > 0, 2 * np.pi / np.sqrt(np.abs(turning)) / h.lr, np.inf)
        slow = np.where(turning > 0, gamma, gamma - np.sqrt(np.maximum(-turning, 0.0)))
        slow = np.where(h.decoupled, stiffness / (1 - h.momentum), slow)
        return Oscillator(gamma, np.sqrt(square), gamma / np.sqrt(square), period, 1 / (slow * h.lr))
