"""Sharpness-aware minimisation: the gradient where the loss is larger, a step up the gradient away."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from neuralmech.training.flat import FlatParameters

TINY = 1e-12  # added to |g|, as usual


class Ascent:
    """Takes the gradient of a batch at θ + ρ g/|g| instead of θ (Foret et al. 2021).

    The parameters are put back bit for bit, and so are buffers: running statistics are those of the pass at θ.

    Attributes
    ----------
    gradient
        That at θ, flat, as it was last.
    norm
        |g| + 10⁻¹², on the device.
    """

    def __init__(self, rho: float, model: nn.Module, flat: FlatParameters) -> None:
        self._rho, self._flat, self._buffers = rho, flat, list(model.buffers())
        theta = flat.theta.detach()
        self.gradient, self._kept = torch.zeros_like(theta), torch.empty_like(theta)
        self.norm = torch.zeros((), dtype=torch.float64, device=theta.device)

    def climb(self, backward: Callable[[], object]) -> None:
        """Replace the gradient in the flat vector by the one up there, which `backward` adds to it."""
        with torch.no_grad():
            theta, gradient = self._flat.theta, self._flat.grad
            self.gradient.copy_(gradient)
            self._kept.copy_(theta)
            buffers = [b.clone() for b in self._buffers]
            self.norm.copy_(torch.linalg.vector_norm(gradient, dtype=torch.float64)).add_(TINY)
            theta.addcmul_(gradient, (self._rho / self.norm).to(theta.dtype))
            gradient.zero_()
        backward()
        with torch.no_grad():
            theta.copy_(self._kept)
            for buffer, before in zip(self._buffers, buffers, strict=True):
                buffer.copy_(before)
