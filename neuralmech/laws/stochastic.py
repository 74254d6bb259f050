"""The drive's expectation at another batch size."""

from __future__ import annotations

import numpy as np

from neuralmech.laws.modified_loss import driven
from neuralmech.laws.system import Circumstances, Hyperparameters, Law, Transition


class Stochastic(Law):
    """E[gᵀSg] at batch size S is M + tr(SΣ)/S: the mean gradient's form and the noise of single samples.

    M and tr(SΣ) may come from a run at another batch size. The drive enters the modified loss,
    Q' = −(2λ + ηλ²)Q + η(M + tr(SΣ)/S). With momentum the drive is the form of a sum of gradients, which also takes
    the products of the mean gradients of different steps: between M/(1−β)² if the mean keeps its direction over
    1/(1−β) steps and nothing if it turns around at every step. They are not measured.

    Both come from the two halves of a batch drawn without replacement from N samples: E[g_AᵀSg_B] =
    ḡᵀSḡ − tr(SΣ)/N and S·E[(g_A−g_B)ᵀS(g_A−g_B)]/4 = tr(SΣ), so that their sum is unbiased at any batch size, if the
    loss is a mean over samples; otherwise at the measured one, and to first order in 1/S at others.
    """

    name = "stochastic"
    label = "stochastic"
    holds = ("decay",)
    equation = r"\dot Q = -(2\lambda + \eta\lambda^2)\,Q + \eta\,(\bar G + \mathrm{tr}(S\Sigma)/B)"
    source = "Kunin et al. 2021 (Neural Mechanics), section 5 (stochasticity)"
    omits = "what this batch's gradient had beyond its expectation"
    inputs = ("gradient_mean", "gradient_noise")
    translation_inputs = ()

    def objection(self, c: Circumstances) -> str:
        """Derived without momentum; needs gradients of half batches."""
        why = super().objection(c)
        if "gradient_" in why:
            return f"{why}; train with track.noise=1"
        return why or ("with momentum it takes how long the mean gradient keeps its direction" if c.momentum else "")

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Exact step of the equation with the expected drive held over each step."""
        if translation:
            return driven(h, np.zeros((len(h), 0)), translation=True)
        weights = np.stack([np.ones(len(h)), 1 / h.batch_size], axis=1)
        return driven(h, (h.lr**2)[:, None] * weights, translation=False)
