"""Parameters and gradients as views into two flat buffers, so that one kernel serves them all."""

from __future__ import annotations

import torch
from torch import nn

from neuralmech.symmetry.layout import Layout


class FlatParameters:
    """Move a model's trainable parameters into one tensor `theta` with gradient `theta.grad`.

    The model keeps working as before: its parameters are views of `theta`, their gradients views of
    ``theta.grad``. Frozen parameters stay where they are; tied ones appear once.
    """

    def __init__(self, model: nn.Module) -> None:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.layout = Layout.by_shape({name: tuple(p.shape) for name, p in named.items()})
        first = next(iter(named.values()))
        flat = torch.empty(self.layout.size, dtype=first.dtype, device=first.device)
        self.theta = nn.Parameter(flat)
        self.theta.grad = torch.zeros_like(flat)
        for name, p in named.items():
            part = slice(self.layout.offsets[name], self.layout.offsets[name] + p.numel())
            flat[part].copy_(p.detach().reshape(-1))
            p.data = flat[part].view(p.shape)
            p.grad = self.theta.grad[part].view(p.shape)

    @property
    def grad(self) -> torch.Tensor:
        """The gradient, flat."""
        assert self.theta.grad is not None
        return self.theta.grad
