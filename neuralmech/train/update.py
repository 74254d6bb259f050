"""From a batch to an update: the loss in the precision asked for, its gradient, the optimiser and its step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from neuralmech.config import OptimConfig, TrainConfig
from neuralmech.losses import Loss as Criterion
from neuralmech.outputs import output_of
from neuralmech.schedules import scheduled

PARAMETERS = {"fp64": torch.float64}  # float32 otherwise
ACTIVATIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def parameter_type(precision: str) -> torch.dtype:
    """Type of parameters, their gradients and the data."""
    return PARAMETERS.get(precision, torch.float32)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Where a model is run: matrix products in bf16 or fp16 if that is the precision."""
    if precision not in ACTIVATIONS:
        return nullcontext()
    return torch.autocast(device.type, dtype=ACTIVATIONS[precision])


def loss_function(train: TrainConfig, device: torch.device, criterion: Criterion) -> Loss:
    """``loss(model, x, y)`` of a batch: the model in the precision of `train`, the loss in its own."""
    is_double = train.loss_precision == "fp64"
    precision = train.precision

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with autocast(precision, device):
            out = output_of(model(x))
        if is_double:
            out = out.double()
        elif precision in ACTIVATIONS:
            out = out.float()
        return criterion(out, y)

    return loss


class Update:
    """The optimiser's step on a flat vector, under fp16 with scaled gradients, and without waiting for the device.

    fp16 gradients underflow, so the loss is multiplied by a scale that falls whenever a gradient is not finite and
    grows again after 2,000 steps that are (`torch.amp.GradScaler`). A gradient that is not finite moves nothing:
    parameters, momentum and weight decay stay as they are, the fused optimisers read that from the device, and
    the gradient counts as 0. Other precisions pass through.

    Attributes
    ----------
    skipped
        Steps before the last one whose update was left out, a number on the device; None if there can be none.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, theta: nn.Parameter, train: TrainConfig) -> None:
        self._optimizer, self._theta = optimizer, theta
        is_scaled = train.precision == "fp16"
        self._scaler = torch.amp.GradScaler(theta.device.type, init_scale=train.loss_scale, enabled=is_scaled)
        self.skipped: Tensor | None = None
        if is_scaled:
            self.skipped = torch.zeros((), dtype=torch.float64, device=theta.device)
            self._overflow = torch.zeros((), dtype=torch.float32, device=theta.device)
            optimizer.register_step_post_hook(self._notice)
            if optimizer.param_groups[0].get("momentum"):  # else a first step that is skipped leaves it undefined
                optimizer.state[theta].setdefault("momentum_buffer", torch.zeros_like(theta))

    def backward(self, loss: Tensor) -> None:
        """Gradient of the loss, still scaled."""
        self._scaler.scale(loss).backward()

    def step(self) -> None:
        """Unscale the gradient and step, unless it is not finite."""
        if self.skipped is not None:
            self.skipped += self._overflow
        self._scaler.unscale_(self._optimizer)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self.skipped is not None and self._theta.grad is not None:
            self._theta.grad.masked_fill_(self._overflow > 0, 0.0)

    def _notice(self, optimizer: Any, *_: object) -> None:
        """GradScaler tells fused optimisers, for the time of the step, whether they must not move."""
        self._overflow.copy_(optimizer.found_inf)

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint; waits for the device."""
        if self.skipped is None:
            return {}
        return {**self._scaler.state_dict(), "skipped": float(self.skipped + self._overflow)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        if self.skipped is not None:
            self._scaler.load_state_dict(state)
            self.skipped.fill_(state["skipped"])
            self._overflow.zero_()


class SGDW(torch.optim.SGD):
    """SGD with decoupled weight decay: θ ← (1 − ηλ)θ − ηu, and λ does not enter the momentum buffer.

    Source: Loshchilov & Hutter 2019 (Decoupled Weight Decay Regularization), algorithm 1, with PyTorch's
    convention that λ is multiplied by the learning rate. ``param_groups`` holds λ as ``decay``.
    """

    def __init__(self, params: Any, *, decay: float, **options: Any) -> None:
        super().__init__(params, weight_decay=0.0, **options)
        for group in self.param_groups:
            group["decay"] = decay

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Shrink, then step; neither if the gradient was not finite."""
        skip = getattr(self, "found_inf", None)  # what GradScaler says, on the device
        for group in self.param_groups:
            if group["decay"]:
                shrink = 1 - group["lr"] * group["decay"]
                torch._foreach_mul_(group["params"], shrink if skip is None else torch.where(skip > 0, 1.0, shrink))
        return super().step(closure)


def build_optimizer(theta: nn.Parameter, optim: OptimConfig) -> torch.optim.Optimizer:
    """Fused optimiser of the flat vector."""
    sgd = {
        "lr": optim.lr,
        "momentum": optim.momentum,
        "dampening": optim.dampening,
        "nesterov": optim.nesterov,
        "fused": True,
    }
    if optim.name == "sgd":
        return torch.optim.SGD([theta], weight_decay=optim.weight_decay, **sgd)
    if optim.name == "sgdw":
        return SGDW([theta], decay=optim.weight_decay, **sgd)
    kind = torch.optim.AdamW if optim.name == "adamw" else torch.optim.Adam
    betas = (optim.betas[0], optim.betas[1])
    return kind([theta], lr=optim.lr, betas=betas, eps=optim.eps, weight_decay=optim.weight_decay, fused=True)


def momentum_buffer(optimizer: torch.optim.Optimizer, theta: nn.Parameter) -> Tensor | None:
    """SGD's momentum buffer b after a step; None if there is none."""
    return optimizer.state[theta].get("momentum_buffer")


def hyperparameters(optim: OptimConfig, step: int, steps: int, time: float, batch_size: int) -> dict[str, float]:
    """Columns of ``/steps`` for a step; time is Σ η of the steps before."""
    adaptive = optim.name.startswith("adam")
    return {
        "step": step,
        "time": time,
        "lr": scheduled(optim.lr, optim.schedule, step, steps),
        "momentum": optim.betas[0] if adaptive else optim.momentum,
        "dampening": 0.0 if adaptive else optim.dampening,
        "weight_decay": scheduled(optim.weight_decay, optim.weight_decay_schedule, step, steps),
        "nesterov": optim.nesterov,
        "decoupled": optim.name in ("sgdw", "adamw"),
        "batch_size": batch_size,
    }


def set_hyperparameters(optimizer: torch.optim.Optimizer, row: Mapping[str, float | Tensor]) -> None:
    """Give the optimiser the learning rate and weight decay of a step."""
    group = optimizer.param_groups[0]
    group["lr"] = row["lr"]
    group["decay" if "decay" in group else "weight_decay"] = row["weight_decay"]
