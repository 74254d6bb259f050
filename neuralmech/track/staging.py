"""Copies of a GPU's buffers for a thread to read while the GPU goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Staging:
    """Copies tensors from a GPU to the host without making anyone wait who need not.

    They go into pinned memory on a stream of their own, beside the next step's forward and backward
    pass; pinned memory is PyTorch's own, which uses it again once nobody holds it and the copy is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._copied: torch.cuda.Event | None = None

    def copies(self, parts: Sequence[Tensor]) -> tuple[list[Tensor], Callable[[], None]]:
        """Copies, and what waits until they are there; `parts` may change only after `release`."""
        copies = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in parts]
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for copy, part in zip(copies, parts, strict=True):
                copy.copy_(part, non_blocking=True)
        self._copied = torch.cuda.Event(blocking=True)
        self._copied.record(self._stream)
        return copies, self._copied.synchronize

    def release(self) -> None:
        """Make the device wait until the last parts are copied, before it writes to them again."""
        if self._copied is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied)
            self._copied = None
