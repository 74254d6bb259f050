"""Measure charges in a training loop that somebody else wrote."""

from neuralmech.attachment.attached import Attached, attach

__all__ = ["Attached", "attach"]
