"""From a batch to an update: the loss in the precision asked for, its gradient, and the rule's step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralmech.config import TrainConfig
from neuralmech.losses import Loss as Criterion
from neuralmech.outputs import output_of
from neuralmech.training.flat import FlatParameters
from neuralmech.training.rule import LearningRule

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
    """The rule's step, its gradient clipped if it is to be, under fp16 with scaled gradients; waits for no device.

    fp16 gradients underflow, so the loss is multiplied by a scale that falls whenever a gradient is not finite and
    grows again after 2,000 steps that are (`torch.amp.GradScaler`). A gradient that is not finite moves nothing:
    parameters, momentum and weight decay stay as they are, the fused optimisers read that from the device, and
    the gradient counts as 0. Other precisions pass through.

    Clipping is PyTorch's: by norm g ← g·min(1, c/(|g| + 10⁻⁶)), over all parameters together, or entry by entry.

    Attributes
    ----------
    skipped
        Steps before the last one whose update was left out, a number on the device; None if there can be none.
    clip
        Factor by which the last gradient was shortened, on the device; None if none is.
    """

    def __init__(self, rule: LearningRule, flat: FlatParameters, train: TrainConfig) -> None:
        self._rule, self._flat = rule, flat
        is_scaled, device = train.precision == "fp16", flat.theta.device
        self._scaler = torch.amp.GradScaler(device.type, init_scale=train.loss_scale, enabled=is_scaled)
        self.skipped: Tensor | None = None
        self.clip: Tensor | None = None
        if rule.config.clip_norm is not None:
            self.clip = torch.ones((), dtype=torch.float64, device=device)
        if is_scaled:
            self.skipped = torch.zeros((), dtype=torch.float64, device=device)
            self._overflow = torch.zeros((), dtype=torch.float32, device=device)
            rule.optimizer.register_step_post_hook(self._notice)
            for group in rule.optimizer.param_groups:
                for p in (
                    group["params"] if group.get("momentum") else ()
                ):  # else a skipped first step leaves it undefined
                    rule.optimizer.state[p].setdefault("momentum_buffer", torch.zeros_like(p))

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Gradient of the loss, still scaled."""
        self._scaler.scale(loss).backward()

    def step(self) -> None:
        """Unscale the gradient, clip it, and step, unless it is not finite."""
        if self.skipped is not None:
            self.skipped += self._overflow
            self._scaler.unscale_(self._rule.optimizer)
        if self._rule.config.clip_norm is not None or self._rule.config.clip_value is not None:
            self._shorten(self._flat.grad)
        if self.skipped is None:
            self._rule.step()
            return
        self._scaler.step(self._rule.optimizer)
        self._scaler.update()
        self._flat.grad.masked_fill_(self._overflow > 0, 0.0)

    @torch.no_grad()
    def _shorten(self, gradient: Tensor) -> None:
        config = self._rule.config
        if config.clip_norm is not None and self.clip is not None:
            norm = torch.linalg.vector_norm(gradient)
            factor = (config.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            gradient.mul_(factor)
            self.clip.copy_(factor)
        if config.clip_value is not None:
            gradient.clamp_(-config.clip_value, config.clip_value)

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
