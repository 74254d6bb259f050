"""Steps of plain SGD on the CPU: update and measurement in one pass over the parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuralmech.charges.step import Motion, Mover
from neuralmech.config import OptimConfig
from neuralmech.train.execute import Measuring, Row, Tools


class InOnePass:
    """PyTorch's fused SGD bit for bit (see `Mover`), and the charges out of the same pass.

    Gradients stay where autograd leaves them, which saves to clear and to add to a flat one, and no copy of θ_k is
    needed: each row of a weight is summed while it is in the cache.
    """

    def __init__(self, tools: Tools, mover: Mover) -> None:
        self._tools, self._mover = tools, mover

    def rate(self, lr: float) -> float:
        """The learning rate unchanged; only a captured graph, which keeps it in a float32 tensor, rounds it."""
        return lr

    def take(self, row: Row, x: Tensor, y: Tensor, what: Measuring) -> None:
        """Gradients, then the pass."""
        tools = self._tools
        tools.rule.set(row)  # for checkpoints; the pass has them from the row
        for p in tools.flat.parameters:
            p.grad = None
        loss = tools.loss(tools.model, x, y)
        tools.update.backward(loss)
        tools.finite.see_here(value := loss.item())
        gradients = [_dense(p) for p in tools.flat.parameters]
        motion = Motion(gradients, self._buffer(), row["lr"], row["momentum"], row["weight_decay"])
        if not what.charges:
            self._mover.move(motion)
            return
        if what.noise:
            tools.measure_noise(x, y, torch.cat([g.reshape(-1) for g in gradients]))
        tools.tracker.advance(self._mover, motion, value, row, norms=what.norms)

    def _buffer(self) -> Tensor | None:
        """Momentum buffer in the optimiser's state, so that checkpoints have it; zeros before the first step."""
        optimizer = self._tools.rule.optimizer
        if not optimizer.param_groups[0]["momentum"]:
            return None
        state = optimizer.state[self._tools.flat.theta]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(self._mover.theta)
        return state["momentum_buffer"]


def _dense(p: nn.Parameter) -> Tensor:
    """Gradient of a parameter as a dense tensor: zeros where the loss does not depend on it (autograd leaves none)."""
    if p.grad is None:
        return torch.zeros_like(p)
    return p.grad if p.grad.layout == torch.strided else p.grad.to_dense()


def in_one_pass(tools: Tools) -> InOnePass | None:
    """What takes such steps, or None: only SGD on the CPU, of all parameters alike, with the gradients as they are."""
    optim = tools.rule.config
    is_plain = isinstance(optim, OptimConfig) and optim.name == "sgd" and not (optim.dampening or optim.nesterov)
    if not is_plain or optim.groups or optim.changes_gradients or tools.update.skipped is not None:
        return None
    mover = tools.tracker.mover(tools.flat.theta.detach())
    return InOnePass(tools, mover) if mover else None
