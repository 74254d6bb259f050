"""The exact motion under Adam: what its moving metric makes of a charge, and what remains if the metric stood still."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from neuralmech.laws.system import Array, Circumstances, Hyperparameters, Law, Remembering, Transition, Uneven

ADAMS = ("adam", "adamw")


class MovingMetric(Remembering):
    """Noether's theorem for the kinetic energy of Adam, whose metric moves.

    With w = √v̂ + ε after the step's gradient and c = 1/(1 − β₁^{k+1}) the rule is θ ← (1 − ηλ)θ − ηc m/w, so that
    the charge in the metric, q = θᵀSwθ, and X = θᵀSm obey

        q ← (1 − ηλ)²q − 2η(1 − ηλ)cA + η²c²F + E,  X ← (1 − ηλ)A − ηcF,  A = β₁X + (1 − β₁)R

    with F = mᵀSw⁻¹m and E = θ′ᵀS(w′ − w)θ′. R vanishes by the symmetry, so the momentum is predicted, from X = 0; what
    the metric does, F and E, is measured. λ of Adam, which goes through the gradient, adds (1 − β₁)λθᵀSθ to A and
    nothing else. A translation charge ⟨a, wθ⟩ has 1 − ηλ and η for the square and 2η, and no F.
    """

    name = "moving_metric"
    label = "moving metric"
    holds = ("decay", "drive", "inertia", "orders", "drift")
    equation = r"q_{k+1} = (1-\eta\lambda)^2 q_k - 2\eta(1-\eta\lambda)cA_k + \eta^2c^2F_k + E_k"
    source = "exact algebra of Adam's update; Tanaka & Kunin 2021 for the kinetic energy"
    omits = "the rounding of stored parameters; the metric's F and E are measured"
    optimizers = ADAMS
    inputs = ("residual", "plain_charge", "metric_drive", "metric_drift")
    translation_inputs = ("residual", "plain_charge", "metric_drift")

    def is_shown(self, c: Circumstances) -> bool:
        """Only in the metric."""
        return c.metric and c.optimizer in self.optimizers

    def within(self, c: Circumstances) -> Law:
        """With what decays as an input, where that is no multiple of the charge."""
        return Unevenly(self) if c.mixed else self

    def objection(self, c: Circumstances) -> str:
        """Only under Adam, of its metric charges, step by step."""
        if not c.metric or c.optimizer not in self.optimizers:
            return "only for charges in Adam's metric"
        return self._lacks(c) if c.every_step else "needs every step: the metric moves at each"

    def signals(self, c: Circumstances) -> tuple[str, ...]:
        """All, but the plain charge only where weight decay goes through the gradient."""
        return tuple(s for s in self.in_order(translation=c.translation) if not (c.decoupled and s == "plain_charge"))

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ (rows, 2, 2) and Γ (rows, 2, inputs)."""
        force = {"residual": np.ones(len(h)), "plain_charge": np.where(h.decoupled, 0.0, h.weight_decay)}
        phi, gamma = _memory(h, force, translation=translation)
        return _moving(h, phi, [gamma, *([] if translation else [_drive(h)]), _drift(h)])


class ConstantMetric(MovingMetric):
    """The same, as if the metric stood still: E is left out. What it is off by is what moves with the metric."""

    name = "constant_metric"
    label = "constant metric"
    holds = ("decay", "drive", "inertia", "orders")
    equation = r"q_{k+1} = (1-\eta\lambda)^2 q_k - 2\eta(1-\eta\lambda)cA_k + \eta^2c^2F_k"
    omits = "the motion of the metric, E"

    def signals(self, c: Circumstances) -> tuple[str, ...]:
        """All but the metric's drift."""
        return tuple(s for s in super().signals(c) if s != "metric_drift")


class Unevenly(Uneven):
    """`MovingMetric` where parameters decay at different rates κηλ: what decays is an input.

    Decoupled: q loses 2ηλ L₁ − η²λ²L₂ − 2η²λcN and X loses ηλN, with L₁ = θᵀSwκθ, L₂ = θᵀSwκ²θ, N = θᵀSκm. Through the
    gradient: A gains (1 − β₁)λθᵀSκθ.
    """

    optimizers = ADAMS
    inputs = (
        "residual", "decay", "metric_drive", "metric_drift", "metric_decay", "metric_decay_twice", "metric_decay_mean",
    )  # fmt: skip
    translation_inputs = ("residual", "decay", "metric_drift", "metric_decay")
    _APART: ClassVar = ("metric_decay", "metric_decay_twice", "metric_decay_mean")

    def signals(self, c: Circumstances) -> tuple[str, ...]:
        """Those of the law, with what decays in the place of the plain charge."""
        own = {*self._law.signals(c), *(self._APART if c.decoupled else ("decay",))}
        return tuple(s for s in self.in_order(translation=c.translation) if s in own)

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ (rows, 2, 2) and Γ (rows, 2, inputs)."""
        decay = 1 if translation else 2
        force = {"residual": np.ones(len(h)), "decay": h.weight_decay}
        phi, gamma = _memory(replace(h, weight_decay=np.zeros(len(h))), force, translation=translation)
        lost = np.zeros((len(h), 2, 1 if translation else 3))
        rate = h.lr * h.weight_decay
        lost[:, 0, 0] = -decay * rate
        if not translation:
            lost[:, 0, 1] = rate**2
            lost[:, 0, 2] = decay * h.lr * _correction(h) * rate
            lost[:, 1, 2] = -rate
        return _moving(h, phi, [gamma, *([] if translation else [_drive(h)]), _drift(h), lost])


def _correction(h: Hyperparameters) -> Array:
    """c = 1/(1 − β₁^t) at the t-th update."""
    return 1 / (1 - h.momentum ** (h.updates + 1.0))


def _kept(h: Hyperparameters) -> Array:
    """Share of θ that decoupled weight decay leaves."""
    return 1 - np.where(h.decoupled, h.lr * h.weight_decay, 0.0)


def _moving(h: Hyperparameters, phi: Array, parts: list[Array]) -> Transition:
    """Φ, and Γ of its parts side by side; both stand still over a span of 0."""
    gamma, still = np.concatenate(parts, axis=2), h.span == 0
    phi[still], gamma[still] = np.eye(2), 0.0
    return phi, gamma


def _memory(h: Hyperparameters, force: dict[str, Array], *, translation: bool) -> Transition:
    """Φ, and Γ for what enters the mean gradient, each with its weight."""
    decay, kept = 1 if translation else 2, _kept(h)
    left = np.ones(len(h)) if translation else kept  # a translation does not move m along
    of_mean = -decay * h.lr * _correction(h) * (1.0 if translation else kept)  # A in q
    phi = np.zeros((len(h), 2, 2))
    phi[:, 0, 0] = kept**decay
    phi[:, 0, 1] = of_mean * h.momentum
    phi[:, 1, 1] = left * h.momentum
    gamma = np.zeros((len(h), 2, len(force)))
    for i, weight in enumerate(force.values()):
        gamma[:, 0, i] = of_mean * (1 - h.momentum) * weight
        gamma[:, 1, i] = left * (1 - h.momentum) * weight
    return phi, gamma


def _drive(h: Hyperparameters) -> Array:
    """Γ for F."""
    gamma = np.zeros((len(h), 2, 1))
    gamma[:, 0, 0] = (h.lr * _correction(h)) ** 2
    gamma[:, 1, 0] = -h.lr * _correction(h)
    return gamma


def _drift(h: Hyperparameters) -> Array:
    """Γ for E."""
    gamma = np.zeros((len(h), 2, 1))
    gamma[:, 0, 0] = 1.0
    return gamma
