r"""Time symmetry: the loss has no clock of its own, so every change of it is paid for by motion.

Under gradient flow dL/dt = ⟨g, θ̇⟩ = −|g|² (Głuch & Urbanke 2021, time symmetry). A step of finite size adds
the curvature along it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralmech.balance.functional import gradient, inner, outputs_of, trainable
from neuralmech.errors import UserError
from neuralmech.losses import LossLike, loss_of


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
    model: nn.Module, inputs: Tensor, targets: Tensor, after: Mapping[str, Tensor], loss: LossLike = "cross_entropy"
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
    inputs: Tensor,
    targets: Tensor,
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
