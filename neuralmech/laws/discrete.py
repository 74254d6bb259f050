"""The exact motion of a charge under PyTorch's SGD: algebra, no approximation."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import numpy as np

from neuralmech.laws.integration import repeat
from neuralmech.laws.system import Array, Circumstances, Hyperparameters, Law, Remembering, Transition, Uneven


class _Stepwise(Remembering):
    """A law that is told step by step."""

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ and Γ of one step, composed over the span."""
        return repeat(lambda one: self._step(one, translation=translation), h)

    @abstractmethod
    def _step(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ and Γ of single steps, with the inputs in full order."""


class Discrete(_Stepwise):
    """State (Q, P = θᵀSb): P̃ = βP + (1−δ)λQ; Q ← Q − 2ηP̃ + η²D; P ← P̃ − ηD.

    It follows from θ ← θ − ηu, u = b = βb + (1−δ)(g + λθ) and θᵀSg = 0. A translation charge c has the state
    (c, s = ⟨a, b⟩): s ← βs + (1−δ)λc, c ← c − ηs, a forecast from the start alone. Under Nesterov
    u = d + βb, so θᵀSu = λQ + βP̃ and P ← P̃ − ηB with B = uᵀSb.

    With decoupled weight decay (SGDW: θ ← θ − η(λθ + u), and u has no λ) θ moves by v = λθ + u, whose form D is
    what the record holds: Q ← Q − 2η(λQ + P̃) + η²D with P̃ = βP + (1−δ)R, and P ← P̃ − η vᵀSb with
    vᵀSb = D − λ(λQ + P̃).
    """

    name = "discrete"
    label = "discrete"
    holds = ("decay", "drive", "inertia", "orders")
    equation = r"Q_{k+1} = Q_k - 2\eta\tilde P_k + \eta^2 D_k,\quad \tilde P_k = \beta P_k + (1-\delta)\lambda Q_k"
    source = "exact algebra of the SGD update"
    omits = "what breaks the symmetry: a norm's eps, rounding"
    inputs = ("drive_update", "drive_buffer")
    conserving = ("muon",)

    def within(self, c: Circumstances) -> Law:
        """With what decays as an input, where that is no multiple of the charge."""
        return Forced(self) if c.mixed else self

    def _step(self, h: Hyperparameters, *, translation: bool) -> Transition:
        phi = _homogeneous(h, decay=1 if translation else 2)
        return phi, np.zeros((len(h), 2, 0)) if translation else _drives(h)


class DiscreteBroken(Discrete):
    """The discrete law with the residual R = θᵀSg as an input: λQ becomes λQ + R.

    Where the symmetry is broken (a BatchNorm eps, low precision) this closes what the discrete law leaves.
    """

    name = "discrete_broken"
    label = "discrete, broken"
    holds = ("decay", "drive", "inertia", "orders", "breaking")
    equation = r"\tilde P_k = \beta P_k + (1-\delta)(\lambda Q_k + R_k)"
    source = "exact algebra of the SGD update"
    omits = "the rounding of stored parameters"
    inputs = ("residual", "drive_update", "drive_buffer")
    translation_inputs = ("residual",)
    conserving = ()

    def _step(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ and Γ of one step, with the residual as the first input."""
        decay = 1 if translation else 2
        parts = [_residual(h, decay)] if translation else [_residual(h, decay), _drives(h)]
        return _homogeneous(h, decay), np.concatenate(parts, axis=2)


class DiscreteAscent(DiscreteBroken):
    """The discrete law under sharpness-aware minimisation, whose gradient is taken at θ̂ = θ + ρ g/|g|.

    The symmetry holds there, (θ̂)ᵀSg(θ̂) = 0, so that at θ the residual is R = −ρ gᵀSg(θ̂)/|g|. A translation does not
    notice.
    """

    name = "discrete_ascent"
    label = "discrete, ascent"
    holds = ("decay", "drive", "inertia", "orders", "ascent")
    equation = r"R_k = -\rho\, g_k^\top S\,g(\hat\theta_k)/|g_k|"
    source = "the symmetry at θ̂ (Foret et al. 2021 for the rule)"
    omits = "what breaks the symmetry: a norm's eps, rounding"
    inputs = ("residual_of_ascent", "drive_update", "drive_buffer")
    translation_inputs = ()

    def is_shown(self, c: Circumstances) -> bool:
        """Only where there is an ascent."""
        return c.ascent and super().is_shown(c)

    def _step(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """As for `Discrete`, with that residual."""
        return Discrete._step(self, h, translation=True) if translation else super()._step(h, translation=False)


class Forced(Uneven, _Stepwise):
    """A discrete law of charges whose parameters decay at different rates κηλ: L = θᵀSκθ is an input, not κQ.

    P̃ = βP + (1−δ)(λL + R), Q ← Q − 2ηP̃ + η²D, P ← P̃ − ηB with B = uᵀSb. With decoupled weight decay P̃ = βP + (1−δ)R
    and Q ← Q − 2η(λL + P̃) + η²D. A translation charge: the same with 1 for 2 and no drives.
    """

    inputs = ("decay", "drive_update", "residual", "residual_of_ascent", "drive_buffer")
    translation_inputs = ("decay", "residual")

    def signals(self, c: Circumstances) -> tuple[str, ...]:
        """Those of the law, and what decays."""
        own = {"decay", *self._law.signals(c), *(("drive_buffer",) if c.decoupled and not c.translation else ())}
        return tuple(s for s in self.in_order(translation=c.translation) if s in own)

    def _step(self, h: Hyperparameters, *, translation: bool) -> Transition:
        decay = 1 if translation else 2
        free = replace(h, weight_decay=np.zeros(len(h)), decoupled=np.zeros(len(h), dtype=bool))
        phi, residual = _homogeneous(free, decay), _residual(free, decay)
        direct = np.zeros_like(residual)
        direct[:, 0, 0] = -decay * h.lr
        force = h.weight_decay[:, None, None] * np.where(h.decoupled[:, None, None], direct, residual)
        if translation:
            return phi, np.concatenate([force, residual], axis=2)
        drive, buffer = np.split(_drives(free), 2, axis=2)
        apart = h.decoupled[:, None] & ~h.nesterov[:, None]  # then the buffer's drive is not D
        buffer[:, 1] = np.where(apart, -h.lr[:, None], buffer[:, 1])
        drive[:, 1] = np.where(apart, 0.0, drive[:, 1])
        return phi, np.concatenate([force, drive, residual, residual, buffer], axis=2)


def _lookahead(h: Hyperparameters) -> tuple[Array, Array]:
    """(p, q): the update's form is θᵀSu = p·(λQ + R) + q·P."""
    nesterov = h.nesterov.astype(float)
    beta, gain = h.momentum, h.gain
    return nesterov + (1 - nesterov + nesterov * beta) * gain, (1 - nesterov + nesterov * beta) * beta


def _homogeneous(h: Hyperparameters, decay: int) -> Array:
    fresh, old = _lookahead(h)
    phi = np.empty((len(h), 2, 2))
    phi[:, 0, 0] = 1 - decay * h.lr * h.weight_decay * np.where(h.decoupled, 1.0, fresh)
    phi[:, 0, 1] = -decay * h.lr * old
    own = h.lr * h.weight_decay**2 if decay == 2 else 0.0  # what D holds of the charge itself
    phi[:, 1, 0] = np.where(h.decoupled, np.where(h.nesterov, 0.0, own), h.gain * h.weight_decay)
    phi[:, 1, 1] = h.momentum * _retained(h, decay)
    return phi


def _residual(h: Hyperparameters, decay: int) -> Array:
    fresh, _ = _lookahead(h)
    gamma = np.empty((len(h), 2, 1))
    gamma[:, 0, 0] = -decay * h.lr * fresh
    gamma[:, 1, 0] = h.gain * _retained(h, decay)
    return gamma


def _retained(h: Hyperparameters, decay: int) -> Array:
    """Factor on P̃ in P: 1, and 1 + ηλ where D holds −λP̃ of it."""
    return np.where(h.decoupled & ~h.nesterov & (decay == 2), 1 + h.lr * h.weight_decay, 1.0)


def _drives(h: Hyperparameters) -> Array:
    """Γ for (D, B): the buffer's own drive is uᵀSb, which is D without Nesterov."""
    gamma = np.zeros((len(h), 2, 2))
    gamma[:, 0, 0] = h.lr**2
    gamma[:, 1, 0] = np.where(h.nesterov, 0.0, -h.lr)
    gamma[:, 1, 1] = np.where(h.nesterov, -h.lr, 0.0)
    return gamma
