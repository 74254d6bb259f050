"""Angular momentum of a rotation between linear maps: no charge, but a law that depends on time."""

from __future__ import annotations

import numpy as np

from neuralmech.laws.integration import repeat
from neuralmech.laws.system import Circumstances, Hyperparameters, Law, Transition


class AngularMomentum(Law):
    """J_k = ⟨b_k, Aθ_k⟩ of an antisymmetric generator A, b_k the momentum buffer after the step: J ← βJ.

    ⟨g, Aθ⟩ = 0 by the symmetry and ⟨θ, Aθ⟩ = 0 by antisymmetry, so that neither gradients nor weight decay add to it,
    and ⟨b_k, Aθ_{k+1}⟩ = J_k − η⟨b_k, Au_k⟩, whose last term vanishes for u = b: from an empty buffer J stays zero,
    whatever the learning rate and its schedule, and from any other it decays at the rate of the buffer. With decoupled
    weight decay u = λθ + b takes ηλJ away. Nesterov's update leaves W = ⟨b, Au⟩, which is measured: J ← β(J − ηW).
    """

    name = "angular_momentum"
    label = "angular momentum"
    equation = r"J_{k+1} = \beta J_k"
    source = "exact algebra of the SGD update; Marcotte, Gribonval, Peyré 2024 for the flow"
    omits = "the rounding of gradients"
    inputs = ("drive_buffer",)

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ (rows, 1, 1) and Γ (rows, 1, 1), of single steps and composed over the span."""
        return repeat(_step, h)

    def objection(self, c: Circumstances) -> str:
        """Only under SGD; with Nesterov momentum step by step."""
        if c.optimizer not in self.optimizers:
            return "not derived for other rules than SGD: their metric does not share the rotation"
        if c.ascent:
            return "the gradient is that at another point, which the rotation moves, too"
        return self._lacks(c) if c.every_step or not c.nesterov else "Nesterov's W is needed at every step"


def _step(h: Hyperparameters) -> Transition:
    kept = np.where(h.nesterov | ~h.decoupled, 1.0, 1.0 - h.lr * h.weight_decay)
    phi, gamma = h.momentum * kept, np.where(h.nesterov, -h.lr * h.momentum, 0.0)
    return phi[:, None, None], gamma[:, None, None]
