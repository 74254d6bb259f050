"""Parts of an attached training: where learning rates change relative to each other, charges are in another metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from neuralmech.compare.gather.job import Panel
from neuralmech.compare.measure.curves import Curves

PART = "part"  # the key that tells parts of a training apart
JUMP = 0.1  # relative to the charges: a few steps between two parts move them less


def metrics_told(panels: Sequence[Panel]) -> tuple[list[Panel], list[str]]:
    """Say of parts whose charges are in another metric than those before, in their titles and in notes.

    θᵀSθ of parameters whose groups learn at rη has S/r for S: as r changes the same parameters have other charges,
    which shows as a jump from the last row of a part to the first of the next.
    """
    out, notes = list(panels[:1]), []
    for before, panel in pairwise(panels):
        jumped = [f for f, c in panel.curves.items() if f in before.curves and _jumps(before.curves[f], c)]
        if jumped:
            families = " and ".join(filter(None, (", ".join(jumped[:-1]), jumped[-1])))
            notes.append(
                f"{panel.title}: {families} charges are in another metric than in the part before, as learning rates "
                "changed relative to each other; their sizes do not compare"
            )
        out.append(replace(panel, title=f"{panel.title}, another metric") if jumped else panel)
    return out, notes


def _jumps(before: Curves, after: Curves) -> bool:
    """Whether the same charges begin elsewhere than they ended."""
    last, first = before.measured[-1], after.measured[0]
    if last.shape != first.shape:
        return False  # what is trained has changed, and so have the charges
    return bool(np.sqrt(np.mean((first - last) ** 2)) > JUMP * np.sqrt(np.mean(last**2)))
