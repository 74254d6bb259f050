"""Forward and backward of a batch: at once, or in parts one after the other, with the gradient that it has at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from neuralmech.training.flat import FlatParameters
from neuralmech.training.together import ALONE, Alone
from neuralmech.training.update import Loss

Weigh = Callable[[Tensor], Tensor]
Part = tuple[Tensor, Tensor, Tensor]


class Passes:
    """Leaves the gradient of a batch's loss with the parameters, and gives the loss.

    The loss of a batch is the mean over its targets that count. So it is the mean of its parts' losses, each with the
    share w/Σw of the batch's weight that its targets have; a part is forgotten before the next one, but for its
    gradient. What a model computes of several samples together, such as the statistics of BatchNorm, it computes of a
    part.

    Parameters
    ----------
    loss
        ``loss(model, x, y)``.
    weigh
        What targets weigh in a mean over several parts, see `neuralmech.losses.Loss.weight_of`.
    backward
        Adds a loss's gradient to those that are there.
    parts
        How many.
    processes
        Those that share each batch; each has the gradient of the whole in the end.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, weigh: Weigh, backward: Callable[[Tensor], object], flat: FlatParameters,
        parts: int = 1, processes: Alone = ALONE,
    ) -> None:  # fmt: skip
        self._processes = processes
        self._model, self._loss, self._weigh, self._backward = model, loss, weigh, backward
        self._flat, self._parts = flat, parts

    def clear(self) -> None:
        """Forget the gradients. Where one process has them all, autograd leaves new ones where it likes.

        That saves to clear and to add; but several processes add flat ones.
        """
        if self._processes.count > 1:
            self._flat.grad.zero_()
            return
        for p in self._flat.parameters:
            p.grad = None

    def __call__(self, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]) -> Tensor:
        """The loss, without its graph; the gradient is added to those that are there."""
        if self._parts == 1:
            loss = self._pass(x, y)
        else:
            loss = torch.stack([self._pass(*part) for part in parts_of(x, y, self._parts, self._weigh)]).sum()
        if self._processes.count == 1:
            return loss
        return self._processes.mean(self._flat.grad, loss, self._weigh(y) / len(y))

    def _pass(
        self, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."], share: Tensor | None = None
    ) -> Tensor:
        loss = self._loss(self._model, x, y)
        if share is not None:
            loss = share * loss
        self._backward(loss)
        return loss.detach()


def parts_of(
    x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."], parts: int, weigh: Weigh
) -> Iterator[Part]:
    """Parts of a batch, of equal size, and the share that each has in its loss.

    A part is every so many-th sample, as the share of one of several processes is: the same parts, whoever has them.
    A part of which no target counts has no loss: 0/0. It gets those of the fullest, and a share of zero. Nobody waits
    for the device.
    """
    xs, ys = ([samples[first::parts].contiguous() for first in range(parts)] for samples in (x, y))
    weights = torch.stack([weigh(targets).to(y.device, torch.float64) for targets in ys])
    shares = weights / weights.sum()
    if not y.is_floating_point():
        stacked = torch.stack(ys)
        empty = (weights == 0).view(-1, *[1] * (stacked.dim() - 1))
        ys = list(torch.where(empty, stacked.index_select(0, weights.argmax().view(1)), stacked))
    return zip(xs, ys, shares, strict=True)
