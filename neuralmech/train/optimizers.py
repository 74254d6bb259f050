"""Optimisers on the flat parameter vector, and the hyperparameters of each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neuralmech.config import OptimConfig
from neuralmech.schedules import scheduled


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
