"""What takes two steps: by how much the update changed, and what the loss pays for motion behind and ahead."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from neuralmech.charges.step import Step


class Earlier:
    """Keeps θ_{k−1} and 1/η of its step, as far as something compares two steps.

    Attributes
    ----------
    theta
        θ_{k−1}; None where nothing needs it.
    """

    def __init__(self, like: Float[Tensor, " parameters"], *, work: bool, flip: bool) -> None:
        self._measures_work, self._measures_flip = work, flip
        self.theta = torch.empty_like(like) if work or flip else None
        self._rate = torch.zeros((), dtype=torch.float64, device=like.device)  # 0: there was no step before

    def start(self, rate: float) -> None:
        """1/η of the step before the first."""
        self._rate.fill_(rate)

    def keep(self, theta: Float[Tensor, " parameters"]) -> None:
        """Keep what was θ_k until now."""
        if self.theta is not None:
            self.theta.copy_(theta)

    def with_flip(self, step: Step) -> Step:
        """The same with ½(u_k − u_{k−1}), zero at the first step."""
        if not self._measures_flip or self.theta is None:
            return step
        update = (step.before.double() - step.after).mul_(step.rate)
        before = (self.theta.double() - step.before).mul_(self._rate)
        flip = (update - before).mul_(0.5).mul_(self._rate > 0)
        self._rate.copy_(torch.as_tensor(step.rate, dtype=torch.float64))
        return step._replace(flip=flip)

    def write_work(self, step: Step, out: Float64[Tensor, " sides"]) -> None:
        """Write ⟨g_k, θ_{k+1} − θ_k⟩ and ⟨g_k, θ_k − θ_{k−1}⟩ to `out` (2,), if they are wanted."""
        if self._measures_work and self.theta is not None:
            sides = [(step.before, step.after), (self.theta, step.before)]
            torch.stack([_work(step.gradient, *side) for side in sides], out=out)


def _work(gradient: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """⟨g, end − start⟩ in float64."""
    return torch.dot(gradient.double(), end.double() - start)
