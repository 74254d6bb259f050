"""A quick look at charges: no theory, no style; `compare` draws both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from neuralmech.record.charges import Charges

POINTS = 400  # rows drawn, spread evenly


def figure(charges: Charges, signal: str, lines: int) -> Figure:
    """Up to `lines` charges over the steps.

    Raises
    ------
    AttributeError
        If there is no such signal; the message lists them.
    """
    data, index = getattr(charges, signal), charges.index
    rows = np.unique(np.linspace(0, max(0, len(data) - 1), min(POINTS, max(1, len(data)))).astype(int))
    rows, columns = rows[: len(data)], np.unique(np.linspace(0, len(charges) - 1, min(lines, len(charges))).astype(int))
    values = np.stack([data[int(row)][columns] for row in rows]) if len(rows) else np.empty((0, len(columns)))
    out = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = out.subplots()
    for column, curve in zip(columns, values.T, strict=True):
        site, channel = index.iloc[column][["site", "channel"]]
        axes.plot(charges.steps[rows], curve, linewidth=1.2, label=f"{site} [{channel}]".replace("$", r"\$"))
    axes.set(xlabel="step", ylabel=signal.replace("_", " "), title=f"{charges.name}: {len(columns)} of {len(charges)}")
    out.legend(fontsize=7, loc="outside right upper")
    return out
