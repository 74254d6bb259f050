"""Continuous laws: gradient flow and what weight decay, momentum and the finite learning rate add to it.

Time is counted in steps (t/η), so that a schedule of η needs nothing special; rates below are per unit of
t = Σ η_k. `decay` is 2 for a quadratic charge and 1 for a translation, which has no drive.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from neuralmech.laws.integration import zero_order_hold
from neuralmech.laws.system import Array, Hyperparameters, Law, PerRow, Transition


class GradientFlow(Law):
    """Q' = 0: under gradient flow a symmetry conserves its charge (Noether's theorem)."""

    name = "gradient_flow"
    label = "gradient flow"
    equation = r"\dot Q = 0"
    source = "Kunin et al. 2021 (Neural Mechanics), section 4; Gluch & Urbanke 2021"
    omits = "weight decay, momentum and the finite learning rate"
    conserving = ("muon",)

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ = 1, no input."""
        return np.ones((len(h), 1, 1)), np.zeros((len(h), 1, 0))


class WeightDecay(Law):
    """(1−β) Q' = −2λQ: weight decay and momentum, learning rate still infinitesimal.

    With dampening δ the buffer takes in only the share 1−δ of each gradient, so λ becomes (1−δ)λ. Decoupled weight
    decay does not pass the buffer: Q' = −2λQ.
    """

    name = "weight_decay"
    label = "weight decay"
    holds = ("decay",)
    equation = r"(1-\beta)\,\dot Q = -2\lambda Q"
    source = "Kunin et al. 2021 (Neural Mechanics), section 5"
    omits = "the finite learning rate: no drive"
    conserving = ("muon",)

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ = exp(−2λη/(1−β)), no input."""
        decay = 1 if translation else 2
        rate = -decay * h.weight_decay * h.lr * np.where(h.decoupled, 1.0, h.usual_gain / (1 - h.momentum))
        return np.exp(rate * h.span)[:, None, None], np.zeros((len(h), 1, 0))


class FirstOrderFlow(Law):
    """(1−β) Q' = −2λQ + η(1+β)D: the finite learning rate drives the charge.

    For β = 0 this is the integral e^{−2λt}Q₀ + η∫e^{−2λ(t−τ)}D dτ. Under Nesterov momentum the friction gains
    2βηλ and the drive is (1−β)D + 2β²B with B = uᵀSb.
    """

    name = "first_order_flow"
    label = "first-order flow"
    holds = ("decay", "drive")
    equation = r"(1-\beta)\,\dot Q = -2\lambda Q + \eta(1+\beta)\,D"
    source = "Kunin et al. 2021 (Neural Mechanics), section 6"
    omits = "the inertia of momentum: what the charge does within 1/(1−β) steps"
    inputs = ("drive_update", "drive_buffer")

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Exact step of the equation with the drive held over each step."""
        friction, stiffness, drive = coefficients(h, translation=translation)
        a = -h.lr * stiffness / friction
        b = (h.lr / friction)[:, None] * drive
        return zero_order_hold(a[:, None, None], b[:, None, :], h.span)


class ModifiedFlow(Law):
    r"""½η(1+β) Q'' + (1−β) Q' + 2λQ = η(1+β)D + ½η²(1−β)D': a damped, driven harmonic oscillator.

    Over-damped for (1−β)² > 4λη(1+β) (translation: 2λη(1+β)), under-damped below. Decoupled weight decay shrinks
    everything at a rate a = 2λ + O(ηλ²) apart from the oscillator: d/dt + a stands for d/dt, and no spring is left.

    Eliminating P from the exact update leaves Q_{k+1} − Q_k − β(Q_k − Q_{k−1}) + 2ηλQ_k = η²(D_k + βD_{k−1}). The left
    side is centred on step k, where it is η times the oscillator. D_k, the form of the step from k to k+1, is centred
    half a step later, so the right side is η²[(1+β)D + ½η(1−β)D']. D is held over each step, and D' is a kick to
    Q' where D jumps. Nesterov's right side, D_k − βD_{k−1} + 2β²B_{k−1}, has ½η²[(1+β)D' − 2β²B'].

    State (Q, C, V), where C is what the last step's drives put into kicks, and V = Q' + 2(1−δ)λQ/(1+β), which a jump
    of λ leaves as it is (Q' + aQ under decoupled decay); (Q, V) for a translation charge.
    """

    name = "modified_flow"
    label = "modified flow"
    holds = ("decay", "drive", "inertia")
    equation = (
        r"\tfrac{\eta}{2}(1+\beta)\,\ddot Q + (1-\beta)\,\dot Q + 2\lambda Q"
        r" = \eta(1+\beta)\,D + \tfrac{\eta^2}{2}(1-\beta)\,\dot D"
    )
    source = "Kunin et al. 2021 (Neural Mechanics), section 6 and the momentum appendix; dD/dt: from the exact update"
    omits = "third and higher orders in η"
    inputs = ("drive_update", "drive_buffer")

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Exact step of the oscillator with the drive held over each step, after a kick by the drive's jump."""
        friction, stiffness, drive = coefficients(h, translation=translation)
        inertia, shrink = (1 + h.momentum) / 2, _shrinkage(h, translation=translation)  # inertia times η
        a = np.zeros((len(h), 2, 2))
        a[:, 0, 0] = -h.lr * shrink
        a[:, 0, 1] = h.lr
        a[:, 1, 0] = np.where(h.decoupled, 0.0, -stiffness / inertia)
        a[:, 1, 1] = -friction / inertia - h.lr * shrink
        weight = (_decay_in_drive(h) / inertia)[:, None]
        b = np.zeros((len(h), 2, drive.shape[1]))
        b[:, 1, :] = drive * weight
        phi, gamma = zero_order_hold(a, b, h.span)
        memory = _memory_of_decay(h, translation=translation)
        phi, gamma = _turned(memory) @ phi @ _turned(-memory), _turned(memory) @ gamma
        return (phi, gamma) if translation else _kicked(phi, gamma, _kicks(h) * weight, h.span)

    def initial(self, value: Array, inputs: Array, h: Hyperparameters, *, translation: bool) -> Array:
        """Q₀, no drive before, and V₀ = 0: SGD starts with an empty momentum buffer.

        Summing the exact update and integrating the oscillator over a run must leave no lasting difference. The
        drives agree: held to the middle of step k, with the kicks up to it, they add up to η²Σ(D_k + βD_{k−1}). The
        start has to make up for ½η(1+β)Q'₀ = −ηλQ₀, which is V₀ = 0. With dampening δ the first gradient is
        taken in undamped: V₀ = −4δλQ₀/(1+β), and half of it for a translation charge.
        """
        decay = 1 if translation else 2
        undamped = np.where(h.decoupled, 0.0, 2 * decay * (1 - h.usual_gain) * h.weight_decay / (1 + h.momentum))
        return np.stack([value, -undamped * value] if translation else [value, np.zeros_like(value), -undamped * value])


def _memory_of_decay(h: Hyperparameters, *, translation: bool) -> Array:
    """s of V = Q' + sQ: 2(1−δ)λ/(1+β), under Nesterov 1+2β times as much; 0 if decay does not pass the buffer.

    λ_k acts at step k and is held over the step behind it, so half a step late; a jump of λ kicks Q' by −Q times the
    jump of s, and V does not notice.
    """
    lookahead = np.where(h.nesterov, h.momentum, 0.0)
    rate = (1 if translation else 2) * h.usual_gain * h.weight_decay * (1 + 2 * lookahead) / (1 + h.momentum)
    return np.where(h.decoupled, 0.0, rate)


def _turned(s: Array) -> Array:
    """(Q, Q') → (Q, Q' + sQ), shape (rows, 2, 2)."""
    turn = np.zeros((len(s), 2, 2))
    turn[:, 0, 0] = turn[:, 1, 1] = 1.0
    turn[:, 1, 0] = s
    return turn


def _decay_in_drive(h: Hyperparameters) -> Array:
    """What a drive moves in the end, by the exact update over by the oscillator, to first order in ηλ.

    It is 1 but for decoupled weight decay. There a drive F at step k leaves F/(r₁ − r₂) of motion, with r₁ + r₂ =
    1 − 2ηλ + β(1 + ηλ) and r₁r₂ = β(1 − ηλ), and the oscillator, which knows of decay only as a shrinking frame,
    F/(1−β). F itself is η²[D_k + β(1−ηλ)D_{k−1}]. Under Nesterov momentum r₁ = 1 − 2ηλ, r₂ = β, and F has no λ.
    """
    memory = np.where(h.nesterov, 0.0, h.momentum)
    share = (2 + memory) / (1 - h.momentum) - memory / (1 + h.momentum)
    return 1 + np.where(h.decoupled, h.lr * h.weight_decay * share, 0.0)


def _kicks(h: Hyperparameters) -> Array:
    """Weights (rows, inputs) of D and B in C: ½η(1−β)D, under Nesterov ½η(1+β)D − ηβ²B."""
    lookahead = np.where(h.nesterov, h.momentum, 0.0)
    return np.stack([h.lr * (1 - h.momentum + 2 * lookahead) / 2, -h.lr * lookahead * h.momentum], axis=1)


def _kicked(phi: Array, gamma: Array, kicks: Array, span: Array) -> tuple[Array, Array]:
    """The step (phi, gamma) of (Q, Q') after Q' += C_k − C_{k−1}, with C_k = kicks·w_k: of the state (Q, C, Q')."""
    rows, _, inputs = gamma.shape
    step, driven = np.zeros((rows, 3, 3)), np.zeros((rows, 3, inputs))
    ends = np.array([0, 2])
    step[:, ends[:, None], ends] = phi
    step[:, ends, 1] = -phi[:, :, 1]
    driven[:, ends] = gamma + phi[:, :, 1:] * kicks[:, None, :inputs]
    driven[:, 1] = kicks
    step[span == 0], driven[span == 0] = np.eye(3), 0.0
    return step, driven


def _shrinkage(h: Hyperparameters, *, translation: bool) -> Array:
    """Rate of decoupled weight decay to second order in η: s + ½ηs² with s = 2λ (λ for a translation charge).

    Without Nesterov D holds λ²Q + 2λP̃ of the decay's own motion, which adds ½ηs²β/(1−β).
    """
    rate = (1 if translation else 2) * h.weight_decay * h.decoupled
    memory = np.where(h.nesterov | translation, 0.0, h.momentum / (1 - h.momentum))
    return rate + h.lr * rate**2 / 2 * (1 + memory)


def coefficients(h: Hyperparameters, *, translation: bool) -> tuple[PerRow, PerRow, Float64[Array, "rows inputs"]]:
    """Friction of Q', stiffness of Q, and the weights of the drives D and B = uᵀSb.

    Nesterov's update obeys u_k = βu_{k−1} + d_k + β(d_k − d_{k−1}); the last term is βη ḋ in the flow, and
    2θᵀSḋ = 2λQ' + 2uᵀSd with uᵀSd = D − βB. With dampening, λ becomes (1−δ)λ. Decoupled weight decay leaves λ out
    of d and puts (1−β)(Q' + 2λQ) in place of (1−β)Q' + 2λQ.
    """
    decay, extra = (1, 0) if translation else (2, 1)
    beta = h.momentum
    lookahead = np.where(h.nesterov, beta, 0.0)
    friction = 1 - beta + np.where(h.decoupled, 0.0, decay * lookahead * h.lr * h.weight_decay)
    stiffness = decay * h.weight_decay * np.where(h.decoupled, 1 - beta, h.usual_gain)
    update = h.lr * (1 + beta - 2 * lookahead)
    buffer = 2 * h.lr * lookahead * beta
    return friction, stiffness, np.stack([update, buffer], axis=1)[:, : 2 * extra]
