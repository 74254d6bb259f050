"""Curves as a line of text."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-~=+*#"
LEAST_SPAN = 1e-3  # of the largest value: what moves less is drawn as a flat line


def sparkline(values: ArrayLike, width: int, letters: str = BLOCKS) -> str:
    """A curve in `width` letters at most, from its lowest value to its highest; what is not finite is left blank.

    Examples
    --------
    >>> sparkline([0, 1, 2, 3, float("nan"), 7], 6)
    '▁▂▃▄ █'
    >>> sparkline([1.0, 1.0001, 1.0], 3)
    '▄▅▄'
    """
    curve = np.asarray(values, dtype=np.float64)
    parts = np.array_split(curve, min(width, len(curve))) if len(curve) else []
    found = np.array([part[np.isfinite(part)].mean() if np.isfinite(part).any() else np.nan for part in parts])
    there = found[np.isfinite(found)]
    if not len(there):
        return ""
    low, high = there.min(), there.max()
    span = max(high - low, LEAST_SPAN * np.abs(there).max())
    middle, top = (low + high) / 2, len(letters) - 1
    place = (found - middle) / span + 0.5 if span > 0 else np.where(np.isfinite(found), 0.5, np.nan)
    level = np.floor(place * top + 0.5 - 1e-9)
    return "".join(" " if np.isnan(at) else letters[int(at)] for at in level)
