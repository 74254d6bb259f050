"""A model's outputs and loss as pure functions of its trainable parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from neuralmech.losses import LossLike, loss_of
from neuralmech.outputs import output_of

Parameters = dict[str, Tensor]


def trainable(model: nn.Module) -> Parameters:
    """Copies of the trainable parameters, by name; tied ones once."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def outputs_of(model: nn.Module, inputs: Tensor) -> Callable[[Parameters], Tensor]:
    """Outputs as a function of the parameters, in the model's present mode; its buffers are left as they are."""

    def outputs(theta: Parameters) -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        return output_of(functional_call(model, {**theta, **buffers}, (inputs,)), type(model).__name__)

    return outputs


def gradient(
    model: nn.Module, theta: Parameters, inputs: Tensor, targets: Tensor, loss: LossLike
) -> tuple[Tensor, Parameters]:
    """Loss and its gradient at `theta`; a parameter that the loss ignores has the gradient zero."""
    free = {name: p.detach().clone().requires_grad_() for name, p in theta.items()}
    value = loss_of(outputs_of(model, inputs)(free), targets, loss)
    found = torch.autograd.grad(value, list(free.values()), allow_unused=True, materialize_grads=True)
    return value.detach(), dict(zip(free, found, strict=True))


def inner(x: Parameters, y: Parameters) -> float:
    """⟨x, y⟩ over all parameters, summed in float64."""
    return sum(float((x[name].double() * y[name].double()).sum()) for name in x)
