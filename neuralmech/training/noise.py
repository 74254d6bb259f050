"""Gradients of parts and of many batches: what separates the mean gradient from the noise of single samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralmech.data.draws import generators_kept
from neuralmech.losses import CrossEntropy
from neuralmech.training.flat import FlatParameters
from neuralmech.training.passes import parts_of
from neuralmech.training.together import ALONE, Alone

COUNTED = CrossEntropy().weight_of


class Gradients:
    """Gradients at the present parameters, flat, in the layout's order.

    With BatchNorm each part is normalised by its own statistics. The run does not notice: buffers and random numbers
    are put back.

    Parameters
    ----------
    loss
        ``loss(model, x, y)``.
    weigh
        What targets weigh in a mean over several batches; by default the number of them that count.
    parts
        Of each batch, one after the other, see `neuralmech.training.passes.Passes`.
    processes
        Those that have a share of each; the gradients are those of the whole.
    """

    def __init__(
        self,
        model: nn.Module,
        flat: FlatParameters,
        loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
        weigh: Callable[[Tensor], Tensor] = COUNTED,
        parts: int = 1,
        processes: Alone = ALONE,
    ) -> None:
        self._parts, self._processes = parts, processes
        self._model, self._loss, self._parameters, self._weigh = model, loss, flat.parameters, weigh

    def weigh(self, y: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """What the targets of a batch weigh, of which these may be a share."""
        return self._processes.total(self._weigh(y))

    def halves(
        self, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]
    ) -> tuple[Float[Tensor, " parameters"], Float[Tensor, " parameters"]] | None:
        """Gradients of the first and of the second half of a batch; an odd sample at the end is left out.

        None where a half has no target that counts, and so no loss.
        """
        half = len(x) // 2
        parts = [(x[:half], y[:half]), (x[half : 2 * half], y[half : 2 * half])]
        if not all(self.weigh(targets) > 0 for _, targets in parts):
            return None
        first, second = self.each(parts)
        return first, second

    def each(
        self, batches: Iterable[tuple[Shaped[Tensor, "batch ..."], Shaped[Tensor, "batch ..."]]]
    ) -> Iterator[Float[Tensor, " parameters"]]:
        """Gradients of some batches, one after the other."""
        for x, y in batches:
            with self._unnoticed(x.device):
                found = self._gradient(x, y)
            yield found

    @contextmanager
    def _unnoticed(self, device: torch.device) -> Iterator[None]:
        kept = [b.clone() for b in self._model.buffers()]
        with torch.enable_grad(), generators_kept(device):
            yield
        for buffer, value in zip(self._model.buffers(), kept, strict=True):
            buffer.copy_(value)

    def _gradient(self, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]) -> Tensor:
        if self._parts == 1:
            total = self._of(self._loss(self._model, x, y))
        else:
            parts = parts_of(x, y, self._parts, self._weigh)
            found = (self._of(share * self._loss(self._model, part, targets)) for part, targets, share in parts)
            total = next(found)
            for part in found:
                total += part
        if self._processes.count > 1:
            self._processes.mean(total, total.new_zeros(()), self._weigh(y) / len(y))
        return total

    def _of(self, loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(self._parameters, found, strict=True)]
        return torch.cat([g.reshape(-1) for g in parts])


class Epoch:
    """Gradients of an epoch's batches, one after the other; afterwards, the gradient of the loss of all of them.

    The loss of a batch is the mean over its targets that count, so each batch weighs as many as it has
    (with weights of classes: their sum).
    """

    def __init__(
        self, gradients: Gradients, batches: Iterable[tuple[Shaped[Tensor, "batch ..."], Shaped[Tensor, "batch ..."]]]
    ) -> None:
        self._gradients, self._batches = gradients, batches
        self._total: Tensor | None = None
        self._weight: Tensor | float = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        for x, y in self._batches:
            (found,), share = self._gradients.each([(x, y)]), self._gradients.weigh(y)
            part = share * found.double()
            self._total = part if self._total is None else self._total + part
            self._weight = self._weight + share
            yield found

    def whole(self) -> Float[Tensor, " parameters"]:
        """Of those that were gone through, in float64."""
        assert self._total is not None
        return self._total / self._weight
