"""Steps of plain SGD on the CPU: update and measurement in one pass over the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuralmech.charges.step import Motion, Mover
from neuralmech.train.execute import Measuring, Row
from neuralmech.train.optimizers import set_hyperparameters

if TYPE_CHECKING:
    from neuralmech.train.run import Run


class InOnePass:
    """PyTorch's fused SGD bit for bit (see `moves_like_torch`), and the charges out of the same pass.

    Gradients stay where autograd leaves them, which saves to clear and to add to a flat one, and no copy of θ_k is
    needed: each row of a weight is summed while it is in the cache.
    """

    def __init__(self, run: Run, mover: Mover) -> None:
        self._run, self._mover = run, mover

    def rate(self, lr: float) -> float:
        """As it is."""
        return lr

    def take(self, row: Row, x: Tensor, y: Tensor, what: Measuring) -> None:
        """Gradients, then the pass."""
        run = self._run
        set_hyperparameters(run.optimizer, row)  # for checkpoints; the pass has them from the row
        for p in run.flat.parameters:
            p.grad = None
        loss = run.step_loss(run.setup.model, x, y)
        run.update.backward(loss)
        run.finite.see_here(value := loss.item())
        gradients = [_dense(p) for p in run.flat.parameters]
        motion = Motion(gradients, self._buffer(), row["lr"], row["momentum"], row["weight_decay"])
        if not what.charges:
            self._mover.move(motion)
            return
        if what.noise:
            run.measure_noise(x, y, torch.cat([g.reshape(-1) for g in gradients]))
        run.tracker.advance(self._mover, motion, value, row, norms=what.norms)

    def _buffer(self) -> Tensor | None:
        """The optimiser's own, so that checkpoints have it; empty before the first step."""
        if not self._run.config.optim.momentum:
            return None
        state = self._run.optimizer.state[self._run.flat.theta]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(self._mover.theta)
        return state["momentum_buffer"]


def _dense(p: nn.Parameter) -> Tensor:
    """The gradient that autograd left: none where the loss does not depend on p, sparse from some embeddings."""
    if p.grad is None:
        return torch.zeros_like(p)
    return p.grad if p.grad.layout == torch.strided else p.grad.to_dense()


def in_one_pass(run: Run) -> InOnePass | None:
    """That, if the run takes such steps: SGD on the CPU, without dampening, Nesterov or loss scaling."""
    optim = run.config.optim
    if optim.name != "sgd" or optim.dampening or optim.nesterov or run.update.skipped is not None:
        return None
    mover = run.tracker.mover(run.flat.theta.detach())
    return InOnePass(run, mover) if mover else None
