r"""Time symmetry: the loss has no clock of its own, so every change of it is paid for by motion.

Under gradient flow dL/dt = ⟨g, θ̇⟩ = −|g|² (Głuch & Urbanke 2021, time symmetry). A step of finite size adds the
curvature along it. With outputs f, J = ∂f/∂θ and r = ∂L/∂f the chain rule gives ∇L = Jᵀr, so the rate is also
|∇L|² = rᵀJJᵀr = rᵀKr, with the empirical neural tangent kernel K (Jacot et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from neuralmech.errors import UserError
from neuralmech.losses import LossLike, loss_of
from neuralmech.outputs import output_of

Parameters = dict[str, Tensor]


def trainable(model: nn.Module) -> Parameters:
    """Copies of the trainable parameters, by name; tied ones once."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def outputs_of(
    model: nn.Module, inputs: Shaped[Tensor, "samples ..."]
) -> Callable[[Parameters], Float[Tensor, "samples ..."]]:
    """Outputs as a function of the parameters, in the model's present mode; its buffers are left as they are."""

    def outputs(theta: Parameters) -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        return output_of(functional_call(model, {**theta, **buffers}, (inputs,)), type(model).__name__)

    return outputs


def gradient(
    model: nn.Module,
    theta: Parameters,
    inputs: Shaped[Tensor, "samples ..."],
    targets: Shaped[Tensor, "samples ..."],
    loss: LossLike,
) -> tuple[Float[Tensor, ""], Parameters]:
    """Loss and its gradient at `theta`; a parameter that the loss ignores has the gradient zero."""
    free = {name: p.detach().clone().requires_grad_() for name, p in theta.items()}
    value = loss_of(outputs_of(model, inputs)(free), targets, loss)
    found = torch.autograd.grad(value, list(free.values()), allow_unused=True, materialize_grads=True)
    return value.detach(), dict(zip(free, found, strict=True))


def inner(x: Parameters, y: Parameters) -> float:
    """⟨x, y⟩ over all parameters, summed in float64."""
    return sum(float((x[name].double() * y[name].double()).sum()) for name in x)


@dataclass(frozen=True)
class GradientNorm:
    """Both sides of the identity: `squared` = |∇L|² by backpropagation, `kernel` = rᵀKr."""

    squared: float
    kernel: float


def tangent_kernel(model: nn.Module, inputs: Shaped[Tensor, "samples ..."]) -> Float[Tensor, "outputs outputs"]:
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


def gradient_norm(
    model: nn.Module,
    inputs: Shaped[Tensor, "samples ..."],
    targets: Shaped[Tensor, "samples ..."],
    loss: LossLike = "cross_entropy",
) -> GradientNorm:
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


def _jacobian(model: nn.Module, inputs: Shaped[Tensor, "samples ..."]) -> Tensor:
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


@dataclass(frozen=True)
class LossBalance:
    r"""What a step Δ = θ_{k+1} − θ_k = −ηu does to a loss, measured and predicted.

    Attributes
    ----------
    measured
        L(θ_{k+1}) − L(θ_k).
    first
        ⟨g_k, Δ⟩ = −η⟨g_k, u_k⟩: the gradient flow's balance, off by O(η²) per step.
    curvature
        ½ΔᵀHΔ = ½η²uᵀHu, H at θ_k.
    trapezoid
        ½⟨g_k + g_{k+1}, Δ⟩ = −½η⟨g_k + g_{k+1}, u_k⟩, which needs no Hessian.
    """

    measured: float
    first: float
    curvature: float
    trapezoid: float

    @property
    def second(self) -> float:
        """First order and curvature together: off by O(η³) per step, as is `trapezoid`."""
        return self.first + self.curvature


def loss_balance(
    model: nn.Module,
    inputs: Shaped[Tensor, "samples ..."],
    targets: Shaped[Tensor, "samples ..."],
    after: Mapping[str, Float[Tensor, "*shape"]],
    loss: LossLike = "cross_entropy",
) -> LossBalance:
    """Balance the loss of one batch over the step from the model's parameters to `after`.

    The whole training set as the batch gives the balance of a full-batch run; for a mini-batch it says what the
    step did to the loss of that batch, or of any other.

    Parameters
    ----------
    model
        At θ_k, in the mode (training or evaluation) that defines the loss; left as it is.
    inputs, targets
        The batch.
    after
        θ_{k+1} by parameter name, for instance the model's ``state_dict()`` after ``optimizer.step()``; names that
        are no trainable parameters are ignored.
    loss
        As `neuralmech.losses.as_loss` takes it.

    Raises
    ------
    UserError
        If `after` lacks a parameter or has another shape.

    Examples
    --------
    A quadratic loss has no third derivative, so both second-order forms are exact:

    >>> model = nn.Linear(1, 1, bias=False).double()
    >>> x, y = torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    >>> b = loss_balance(model, x, y, {"weight": 0.5 * model.weight.detach()}, "mse")
    >>> max(abs(b.second - b.measured), abs(b.trapezoid - b.measured)) < 1e-15
    True
    """
    here = trainable(model)
    wrong = [name for name, p in here.items() if name not in after or after[name].shape != p.shape]
    if wrong:
        raise UserError(f"after: no value of the right shape for {wrong[0]}; give the state_dict of the same model")
    there = {name: after[name].detach().to(p) for name, p in here.items()}
    step = {name: there[name] - p for name, p in here.items()}
    value, slope = gradient(model, here, inputs, targets, loss)
    next_value, next_slope = gradient(model, there, inputs, targets, loss)
    first = inner(slope, step)
    return LossBalance(
        measured=float(next_value.double() - value.double()),
        first=first,
        curvature=0.5 * _curvature(model, here, step, inputs, targets, loss),
        trapezoid=0.5 * (first + inner(next_slope, step)),
    )


def _curvature(
    model: nn.Module,
    theta: Mapping[str, Tensor],
    step: dict[str, Tensor],
    inputs: Shaped[Tensor, "samples ..."],
    targets: Shaped[Tensor, "samples ..."],
    loss: LossLike,
) -> float:
    """ΔᵀHΔ by a Hessian-vector product."""
    free = {name: p.clone().requires_grad_() for name, p in theta.items()}
    value = loss_of(outputs_of(model, inputs)(free), targets, loss)
    slope = torch.autograd.grad(value, list(free.values()), create_graph=True, allow_unused=True)
    along = [(g * step[name]).sum() for name, g in zip(free, slope, strict=True) if g is not None]
    directional = torch.stack(along).sum()
    if not directional.requires_grad:
        return 0.0
    found = torch.autograd.grad(directional, list(free.values()), allow_unused=True, materialize_grads=True)
    return inner(dict(zip(free, found, strict=True)), step)
