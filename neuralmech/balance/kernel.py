r"""The empirical neural tangent kernel, and what time symmetry says of it: |∇L|² = rᵀKr.

With outputs f, J = ∂f/∂θ and r = ∂L/∂f the chain rule gives ∇L = Jᵀr, so gradient flow loses
−dL/dt = |∇L|² = rᵀJJᵀr = rᵀKr (Głuch & Urbanke 2021, time symmetry; Jacot et al. 2018 for K).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralmech.balance.functional import gradient, inner, outputs_of, trainable
from neuralmech.losses import LossLike, loss_of


@dataclass(frozen=True)
class GradientNorm:
    """Both sides of the identity: `squared` = |∇L|² by backpropagation, `kernel` = rᵀKr."""

    squared: float
    kernel: float


def tangent_kernel(model: nn.Module, inputs: Tensor) -> Tensor:
    """K = JJᵀ, shape (outputs, outputs) with outputs = samples × classes, samples first.

    J has outputs × parameters entries and is held in memory: for small nets and small batches. A norm over
    the batch in training mode couples the samples; it is included.

    Examples
    --------
    A linear model f = wᵀx has K = XXᵀ whatever its weights:

    >>> x = torch.randn(3, 2)
    >>> torch.allclose(tangent_kernel(nn.Linear(2, 1, bias=False), x), x @ x.T, atol=1e-6)
    True
    """
    jacobian = _jacobian(model, inputs)
    return jacobian @ jacobian.T


def gradient_norm(model: nn.Module, inputs: Tensor, targets: Tensor, loss: LossLike = "cross_entropy") -> GradientNorm:
    """Evaluate |∇L|² and rᵀKr at the model's present parameters, in its present mode.

    r = ∂L/∂f: for the mean squared error 2(f − y)/(number of outputs), for cross-entropy
    (softmax(f) − onehot(y))/(number of targets).
    """
    theta = trainable(model)
    _, slope = gradient(model, theta, inputs, targets, loss)
    with torch.no_grad():
        found = outputs_of(model, inputs)(theta)
    free = found.detach().requires_grad_()
    (residual,) = torch.autograd.grad(loss_of(free, targets, loss), free)
    r = residual.reshape(-1)
    return GradientNorm(inner(slope, slope), float(r @ (tangent_kernel(model, inputs) @ r)))


def _jacobian(model: nn.Module, inputs: Tensor) -> Tensor:
    """∂f/∂θ, shape (outputs, parameters), one backward pass per output."""
    free = {name: p.requires_grad_() for name, p in trainable(model).items()}
    outputs = outputs_of(model, inputs)(free).reshape(-1)
    rows = []
    for k in range(outputs.numel()):
        parts = torch.autograd.grad(
            outputs[k], list(free.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([p.reshape(-1) for p in parts]))
    return torch.stack(rows)
