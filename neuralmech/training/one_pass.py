"""Steps of plain SGD and Adam on the CPU: update and measurement in one pass over the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralmech.charges.step import AdamMotion, Motion, Mover, rate_of
from neuralmech.config import OptimConfig
from neuralmech.training.execute import Due, Row, Tools


class State(Protocol):
    """What a rule keeps: in the optimiser's state, so that checkpoints have it, from the first step on."""

    def motion(self, gradients: Sequence[Float[Tensor, "*shape"]], row: Row) -> Motion | AdamMotion:
        """The step of a row, to be taken next."""
        ...


class InOnePass:
    """PyTorch's fused optimiser bit for bit (see `Mover`), and the charges out of the same pass.

    Gradients stay where autograd leaves them, which saves to clear and to add to a flat one, and no copy of θ_k is
    needed: each row of a weight is summed while it is in the cache.
    """

    def __init__(self, tools: Tools, mover: Mover, state: State) -> None:
        self._tools, self._mover, self._state = tools, mover, state

    def rate(self, lr: float) -> float:
        """The learning rate unchanged; only a captured graph, which keeps it in a float32 tensor, rounds it."""
        return lr

    def take(self, row: Row, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."], what: Due) -> None:
        """Gradients, then the pass."""
        tools = self._tools
        tools.rule.set(row)  # for checkpoints; the pass has them from the row
        tools.passes.clear()
        loss = tools.passes(x, y)
        tools.finite.see_here(value := loss.item())
        gradients = [_dense(p) for p in tools.flat.parameters]
        if what.noise:  # whoever records it
            tools.measure_noise(x, y, torch.cat([g.reshape(-1) for g in gradients]))
        motion = self._state.motion(gradients, row)
        if not what.charges:
            self._mover.move(motion)
            return
        if what.norms and tools.tracker.has_leaning:
            self._lean(motion, loss, row)
        else:
            tools.tracker.advance(self._mover, motion, value, row, norms=what.norms)

    def _lean(self, motion: Motion | AdamMotion, loss: Tensor, row: Row) -> None:
        """The same in more than one pass: how far the rule leans is measured of whole vectors."""
        tracker, theta = self._tools.tracker, self._mover.theta
        tracker.before(theta)
        self._mover.move(motion)
        gradient = torch.cat([g.reshape(-1) for g in motion.gradients])
        step = tracker.step(theta, gradient, rate_of(row["lr"]), self._tools.rule.kept(row))
        tracker.after(step, loss, row, norms=True)


class SgdState:
    """The momentum buffer, if there is momentum; zeros before the first step."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def motion(self, gradients: Sequence[Float[Tensor, "*shape"]], row: Row) -> Motion:
        """The step of a row, to be taken next."""
        optimizer, theta = self._tools.rule.optimizer, self._tools.flat.theta
        buffer = None
        if optimizer.param_groups[0]["momentum"]:
            state = optimizer.state[theta]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(theta.detach())
            buffer = state["momentum_buffer"]
        return Motion(gradients, buffer, row["lr"], row["momentum"], row["weight_decay"])


class AdamBuffers:
    """Both moments and the number of steps."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def motion(self, gradients: Sequence[Float[Tensor, "*shape"]], row: Row) -> AdamMotion:
        """The step of a row, to be taken next, which is counted already."""
        rule, theta = self._tools.rule, self._tools.flat.theta
        options, state = rule.optimizer.param_groups[0], rule.optimizer.state[theta]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(theta.detach()) for _ in range(2))
        state["step"] += 1
        numbers = (row["lr"], row["weight_decay"], options["betas"], options["eps"], float(state["step"]))
        return AdamMotion(gradients, state["exp_avg"], state["exp_avg_sq"], *numbers, rule.decoupled)


def _dense(p: nn.Parameter) -> Tensor:
    """Gradient of a parameter as a dense tensor: zeros where the loss does not depend on it (autograd leaves none)."""
    if p.grad is None:
        return torch.zeros_like(p)
    return p.grad if p.grad.layout == torch.strided else p.grad.to_dense()


def in_one_pass(tools: Tools) -> InOnePass | None:
    """What takes such steps, or None: on the CPU, of all parameters alike, with the gradients as they are."""
    optim = tools.rule.config
    if (
        not isinstance(optim, OptimConfig)
        or optim.groups
        or optim.changes_gradients
        or tools.update.skipped is not None
    ):
        return None
    if optim.name == "sgd" and not (optim.dampening or optim.nesterov):
        state: State = SgdState(tools)
    elif optim.name in ("adam", "adamw") and not optim.amsgrad:
        state = AdamBuffers(tools)
    else:
        return None
    mover = tools.tracker.mover(tools.flat.theta.detach())
    return InOnePass(tools, mover, state) if mover else None
