"""Turn a training run into rows of charges: device buffers, whole blocks to the record."""

from neuralmech.track.options import Schedule, Tracking
from neuralmech.track.tracker import Tracker

__all__ = ["Schedule", "Tracker", "Tracking"]
