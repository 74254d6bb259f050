"""Trace a model together with a loss of which nothing is known: its graph says what it ignores."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from jaxtyping import Shaped
from torch import Tensor, fx, nn

from neuralmech.discovery.trace import Trace, trace
from neuralmech.errors import UserError
from neuralmech.losses import Loss
from neuralmech.outputs import output_of

INSIDE = "model."  # what names of the model's parts begin with


class _WithLoss(nn.Module):
    """A model and its loss as one module of inputs and targets."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *batch: Tensor) -> Tensor:
        """Value of the loss; the targets come last."""
        *inputs, targets = batch
        return self.loss(output_of(self.model(*inputs)), targets)


def trace_with(
    model: nn.Module,
    inputs: tuple[Shaped[Tensor, "*shape"], ...],
    loss: Loss,
    targets: Shaped[Tensor, "batch ..."],
    keep: frozenset[str],
) -> Trace:
    """Trace as `trace` does, with the loss's value as the output.

    Raises
    ------
    UserError
        If the two cannot be traced together.
    """
    whole = trace(_WithLoss(model, loss), (*inputs, targets.to(inputs[0].device)), keep)
    _name_places(whole.graph, loss.key)
    return replace(
        whole,
        parameters={node: _inside(name) for node, name in whole.parameters.items()},
        shapes={_inside(name): shape for name, shape in whole.shapes.items()},
        frozen=frozenset(map(_inside, whole.frozen)),
        hooked=frozenset(map(_inside, whole.hooked)),
    )


def check_gradient(
    model: nn.Module, inputs: tuple[Shaped[Tensor, "*shape"], ...], loss: Loss, targets: Shaped[Tensor, "batch ..."]
) -> None:
    """Evaluate a loss of the user's own on what a copy of the model returns, as training does.

    Raises
    ------
    UserError
        If it raises, gives no number, or one without a gradient.
    """
    with torch.random.fork_rng(), torch.enable_grad():
        value = loss(output_of(copy.deepcopy(model).train()(*inputs)), targets.to(inputs[0].device))
    if not value.requires_grad:
        raise UserError(f"{loss.key} has no gradient; compute it from the outputs by differentiable operations")


def _name_places(graph: fx.Graph, loss: str) -> None:
    """Call places of operations as they are in the user's model, and those outside it by the loss."""
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        inner = {key: (_inside(path), kind) for key, (path, kind) in stack.items() if path.startswith(INSIDE)}
        node.meta["nn_module_stack"] = inner or {"": (loss, "")}


def _inside(name: str) -> str:
    return name.removeprefix(INSIDE)
