"""Parameters and gradients as views into two flat buffers, so that one kernel serves them all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralmech.symmetry.layout import Layout


class FlatParameters:
    """Move a model's trainable parameters into one tensor `theta`; their gradients share one too where it is asked for.

    The model keeps working as before: its parameters are views of `theta`, their gradients, from the first use of
    `grad` on, views of ``theta.grad``. Frozen parameters stay where they are; tied ones appear once.

    Parameters
    ----------
    groups
        Number of each parameter's group; those of a group lie side by side.

    Attributes
    ----------
    theta
        All trainable parameters, flat.
    layout
        Where each lies.
    parameters
        The model's own, in the layout's order.
    """

    def __init__(self, model: nn.Module, groups: Mapping[str, int] | None = None) -> None:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.layout = Layout.by_shape({name: tuple(p.shape) for name, p in named.items()}, groups)
        self.parameters = [named[name] for name in self.layout.offsets]
        first = next(iter(named.values()))
        flat = torch.empty(self.layout.size, dtype=first.dtype, device=first.device)
        self.theta = nn.Parameter(flat)
        for p, view in zip(self.parameters, self.layout.parts(flat).values(), strict=True):
            view.copy_(p.detach())
            p.data = view

    @property
    def grad(self) -> Float[Tensor, " parameters"]:
        """The gradient, flat."""
        if self.theta.grad is None:
            self.theta.grad = torch.zeros_like(self.theta)
            for p, view in zip(self.parameters, self.layout.parts(self.theta.grad).values(), strict=True):
                p.grad = view
        return self.theta.grad

    def named(self) -> dict[str, nn.Parameter]:
        """The model's own parameters by name, their gradients views of `grad`."""
        _ = self.grad
        return dict(zip(self.layout.offsets, self.parameters, strict=True))

    def part(self, start: int, end: int) -> nn.Parameter:
        """Some entries of `theta`, with their gradient."""
        out = nn.Parameter(self.theta.detach()[start:end])
        out.grad = self.grad[start:end]
        return out
