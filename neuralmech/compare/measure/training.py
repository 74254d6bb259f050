"""How training went: loss, held-out loss and accuracy, gradient, learning rate, a few numbers of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64

from neuralmech.compare.measure.curves import POINTS
from neuralmech.compare.measure.norms import NormsCurve, norms_curve
from neuralmech.laws.system import Array
from neuralmech.record import Record


@dataclass(frozen=True)
class Band:
    """A column of the record over parts of its rows: means, least and largest numbers; NaN where there are none."""

    mean: Float64[Array, " points"]
    low: Float64[Array, " points"]
    high: Float64[Array, " points"]

    @property
    def is_there(self) -> bool:
        """Whether anything was measured."""
        return bool(np.isfinite(self.mean).any())


@dataclass(frozen=True)
class TrainingCurve:
    """One run's training.

    Attributes
    ----------
    step
        The middle of each part of the rows.
    loss, gradient_norm, lr
        Over these; all NaN where nobody measured it.
    held_out
        ``step``, ``loss`` and ``accuracy`` of each evaluation.
    norms
        Of each layer, where they were recorded.
    """

    step: Float64[Array, " points"]
    loss: Band
    gradient_norm: Band
    lr: Band
    held_out: pd.DataFrame
    norms: NormsCurve | None = None


def training_curve(record: Record) -> TrainingCurve:
    """Read a record's columns part by part: memory does not grow with its length."""
    edges = np.unique(np.linspace(0, record.rows, min(POINTS, record.rows) + 1).astype(np.int64))
    names = ("step", "loss", "gradient_norm", "lr")
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for start in range(0, len(edges) - 1, 16):  # sixteen parts at a time
        here = edges[start : start + 17]
        for name in names:
            column = record.column(name, slice(int(here[0]), int(here[-1])))
            found[name] += [_summary(part) for part in np.split(column, here[1:-1] - here[0])]
    bands = {name: Band(*np.array(rows, dtype=np.float64).reshape(-1, 3).T) for name, rows in found.items()}
    gradient = bands["gradient_norm"]
    if not (gradient.high > 0).any():  # older records have zeros
        bands["gradient_norm"] = Band(*(np.full_like(gradient.mean, np.nan),) * 3)
    if record.config.get("loss_told", True) is False and not (bands["loss"].high > 0).any():
        bands["loss"] = Band(*(np.full_like(gradient.mean, np.nan),) * 3)
    return TrainingCurve(
        step=bands["step"].mean,
        loss=bands["loss"],
        gradient_norm=bands["gradient_norm"],
        lr=bands["lr"],
        held_out=record.evaluation(),
        norms=norms_curve(record),
    )


def _summary(part: Array) -> tuple[float, float, float]:
    finite = part[np.isfinite(part)]
    return (finite.mean(), finite.min(), finite.max()) if len(finite) else (np.nan, np.nan, np.nan)
