"""Gradients of the two halves of a batch: what separates the mean gradient from the noise of single samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuralmech.train.flat import FlatParameters


class HalfGradients:
    """g_A and g_B of a batch's halves at the present parameters, flat, in the layout's order.

    For a batch of S out of N samples, drawn without replacement, E[g_AᵀSg_B] = ḡᵀSḡ − tr(SΣ)/N and
    S·E[(g_A − g_B)ᵀS(g_A − g_B)]/4 = tr(SΣ), so the drive's expectation at any batch size B is the first plus the
    second over B. With BatchNorm a half is normalised by its own statistics. The run does not notice: buffers and
    random numbers are put back.

    Parameters
    ----------
    loss
        ``loss(model, x, y)``.
    """

    def __init__(self, model: nn.Module, flat: FlatParameters, loss: Callable[[nn.Module, Tensor, Tensor], Tensor]):
        named = dict(model.named_parameters())
        self._model, self._loss = model, loss
        self._parameters = [named[name] for name in flat.layout.offsets]

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients on the first and on the second half; an odd sample at the end is left out."""
        half = len(x) // 2
        kept = [b.clone() for b in self._model.buffers()]
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            first, second = (self._gradient(x[part], y[part]) for part in (slice(0, half), slice(half, 2 * half)))
        for buffer, value in zip(self._model.buffers(), kept, strict=True):
            buffer.copy_(value)
        return first, second

    def _gradient(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self._loss(self._model, x, y)
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(self._parameters, found, strict=True)]
        return torch.cat([g.reshape(-1) for g in parts])
