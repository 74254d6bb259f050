"""Gradients of parts and of many batches: what separates the mean gradient from the noise of single samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neuralmech.train.flat import FlatParameters
from neuralmech.train.state import random_state_kept


class Gradients:
    """Gradients at the present parameters, flat, in the layout's order.

    With BatchNorm each part is normalised by its own statistics. The run does not notice: buffers and random numbers
    are put back.

    Parameters
    ----------
    loss
        ``loss(model, x, y)``.
    """

    def __init__(self, model: nn.Module, flat: FlatParameters, loss: Callable[[nn.Module, Tensor, Tensor], Tensor]):
        self._model, self._loss, self._parameters = model, loss, flat.parameters

    def halves(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients on the first and on the second half of a batch; an odd sample at the end is left out.

        For a batch of S out of N samples, drawn without replacement, E[g_AᵀSg_B] = ḡᵀSḡ − tr(SΣ)/N and
        S·E[(g_A − g_B)ᵀS(g_A − g_B)]/4 = tr(SΣ), so the drive's expectation at any batch size B is the first plus the
        second over B.
        """
        half = len(x) // 2
        with self._unnoticed(x.device):
            return self._gradient(x[:half], y[:half]), self._gradient(x[half : 2 * half], y[half : 2 * half])

    def each(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Gradients of some batches, one after the other."""
        for x, y in batches:
            with self._unnoticed(x.device):
                found = self._gradient(x, y)
            yield found

    @contextmanager
    def _unnoticed(self, device: torch.device) -> Iterator[None]:
        kept = [b.clone() for b in self._model.buffers()]
        with torch.enable_grad(), random_state_kept(device):
            yield
        for buffer, value in zip(self._model.buffers(), kept, strict=True):
            buffer.copy_(value)

    def _gradient(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self._loss(self._model, x, y)
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(self._parameters, found, strict=True)]
        return torch.cat([g.reshape(-1) for g in parts])
