"""Noether learning dynamics: normalisation as adaptive optimisation."""

from __future__ import annotations

import numpy as np

from neuralmech.laws.flow import coefficients
from neuralmech.laws.integration import zero_order_hold
from neuralmech.laws.system import Array, Circumstances, Hyperparameters, Law, Transition


class Noether(Law):
    """(1−β)(Q²)' = −4λQ² + 2η(1+β)D̂ for a scale charge Q = |θ|², D̂ = D·Q.

    A loss that ignores the length of θ has g(θ) = g(θ/|θ|)/|θ|, so Ĝ = G·Q, and with it D̂, depends on the direction
    alone: this is the charge's motion without reference to its size. Then η/Q, the learning rate that the direction
    feels, is η/√(Q²) with Q² an exponential average of the squared gradient: RMSProp with discount e^{−4ηλ} per
    step. The state is Q².
    """

    name = "noether"
    label = "Noether"
    holds = ("decay", "drive")
    equation = r"(1-\beta)\,\frac{d}{dt}Q^2 = -4\lambda Q^2 + 2\eta(1+\beta)\,\hat D,\quad \hat D = D\,Q"
    source = "Tanaka & Kunin 2021 (Noether's Learning Dynamics)"
    omits = "the inertia of momentum, (ηD)² in Q², and what breaks scale invariance: a norm's eps"
    inputs = ("unit_drive",)

    def objection(self, c: Circumstances) -> str:
        """Only scale charges; not derived for Nesterov's look-ahead; the optimizer comes first."""
        if c.optimizer not in self.optimizers:
            return super().objection(c)
        if c.family != "scale":
            return "only for scale charges"
        return "not derived for Nesterov momentum" if c.nesterov else super().objection(c)

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Exact step of the equation with the drive held over each step."""
        friction, stiffness, drive = coefficients(h, translation=translation)
        a = -2 * h.lr * stiffness / friction
        b = (2 * h.lr / friction)[:, None] * drive[:, :1]
        return zero_order_hold(a[:, None, None], b[:, None, :], h.span)

    def initial(self, value: Array, inputs: Array, h: Hyperparameters, *, translation: bool) -> Array:
        """Q₀²."""
        return value[None, :] ** 2

    def observe(self, state: Array) -> Array:
        """Q = √(Q²)."""
        return np.sqrt(np.maximum(state, 0.0))
