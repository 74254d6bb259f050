"""What a first run imports on its way, ahead of it."""

from __future__ import annotations

from neuralmech.imports import importing


def make_ready(device: str) -> None:
    """Import torch, what traces models and, where the device is a CPU, what has the compiled sums of charges."""
    with importing("torch", for_good=True):
        import neuralmech.training.loop  # noqa: F401
        from neuralmech.charges.forms import backend_of
        from neuralmech.training.setup import choose_device
    with importing("torch.export._trace"):
        import torch.export._trace  # noqa: F401
    backend_of(choose_device(device))
