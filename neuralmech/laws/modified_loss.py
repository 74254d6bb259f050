"""Modified loss: gradient descent as the flow of a slightly different loss."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from neuralmech.laws.integration import zero_order_hold
from neuralmech.laws.system import Array, Circumstances, Hyperparameters, Law, Transition


class ModifiedLoss(Law):
    """Q' = −(2λ + ηλ²)Q + ηG, for gradient descent without momentum.

    θ' = −ĝ − ½η Ĥĝ with ĝ = g + λθ and Ĥ = H + λ. The Hessian constraint H∂_αψ + (∂_θ∂_αψ)g = 0 turns θᵀSĤĝ into
    λ²Q − G, so the loss's curvature is not needed. A translation charge (H a = 0) obeys c' = −(λ + ½ηλ²)c.
    """

    name = "modified_loss"
    label = "modified loss"
    holds = ("decay", "drive")
    equation = r"\dot Q = -(2\lambda + \eta\lambda^2)\,Q + \eta\,G"
    source = "Kunin et al. 2021 (Neural Mechanics), section 5 (modified loss) with the Hessian constraint of section 3"
    omits = "higher orders in η"
    inputs = ("drive_gradient",)

    def objection(self, c: Circumstances) -> str:
        """Derived without momentum; the optimizer comes first."""
        is_sgds = c.optimizer in self.optimizers
        if is_sgds and (c.ascent or c.clipped):
            return "derived for the gradients of the loss as they are"
        return "derived without momentum" if is_sgds and c.momentum else super().objection(c)

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Exact step of the equation with the drive held over each step."""
        return driven(h, np.zeros((len(h), 0)) if translation else (h.lr**2)[:, None], translation=translation)


def driven(h: Hyperparameters, drives: Float64[Array, "rows inputs"], *, translation: bool) -> Transition:
    """Decay at the rate decay·(λ + ½ηλ²) with `drives`, the weights of each step's inputs."""
    decay = 1 if translation else 2
    a = -decay * h.lr * (h.weight_decay + h.lr * h.weight_decay**2 / 2)
    return zero_order_hold(a[:, None, None], drives[:, None, :], h.span)
