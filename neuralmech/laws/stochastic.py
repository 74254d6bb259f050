"""The drive's expectation at another batch size."""

from __future__ import annotations

import numpy as np

from neuralmech.laws.modified_loss import driven
from neuralmech.laws.system import Array, Circumstances, Hyperparameters, Law, zero_order_hold


class Stochastic(Law):
    """E[gᵀSg] at batch size S is M + tr(SΣ)/S: the mean gradient's form and the noise of single samples.

    M and tr(SΣ) may come from a run at another batch size. For β = 0 the drive enters the modified loss,
    Q' = −(2λ + ηλ²)Q + η(M + tr(SΣ)/S). With momentum the buffer sums a slowly changing mean coherently and
    independent noise incoherently: (1−β)Q' = −2λQ + η[(1+β)/(1−β)² M + tr(SΣ)/((1−β)S)].

    Both come from the two halves of a batch drawn without replacement from N samples: E[g_AᵀSg_B] =
    ḡᵀSḡ − tr(SΣ)/N and S·E[(g_A−g_B)ᵀS(g_A−g_B)]/4 = tr(SΣ), so that their sum is unbiased at any batch size.
    """

    name = "stochastic"
    label = "stochastic drive"
    heading = "stoch."
    equation = r"\dot Q = -(2\lambda + \eta\lambda^2)\,Q + \eta\,(\bar G + \mathrm{tr}(S\Sigma)/B)"
    source = "Kunin et al. 2021 (Neural Mechanics), section 5 (stochasticity)"
    omits = (
        "what this batch's gradient had beyond its expectation; with momentum, changes of the mean within 1/(1−β) steps"
    )
    inputs = ("gradient_mean", "gradient_noise")
    linear_inputs = ()

    def reason(self, c: Circumstances) -> str:
        """Needs gradients of half batches."""
        why = super().reason(c)
        return f"{why}; train with track.noise=1" if "gradient_" in why else why

    def matrices(self, h: Hyperparameters, *, linear: bool) -> tuple[Array, Array]:
        """Exact step of the equation with the expected drive held over each step."""
        beta = h.momentum
        weights = np.stack([(1 + beta) / (1 - beta) ** 2, 1 / ((1 - beta) * h.batch_size)], axis=1)
        drives = np.zeros((len(h), 0)) if linear else (h.lr**2)[:, None] * weights
        if not (beta > 0).any():
            return driven(h, drives, linear=linear)
        stiffness = (1 if linear else 2) * h.weight_decay * np.where(h.decoupled, 1 - beta, h.usual_gain)
        a = -h.lr * stiffness / (1 - beta)
        return zero_order_hold(a[:, None, None], (drives / (1 - beta)[:, None])[:, None, :], h.span)
