"""Rows of a comparison that figures draw."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from neuralmech.laws.system import Array
from neuralmech.record import Record

POINTS = 400  # rows kept for curves


@dataclass(frozen=True)
class Curves:
    """Sampled rows for figures.

    Attributes
    ----------
    step, lr
        Shape (points,).
    measured
        All charges: (points, charges); NaN, as all curves, where a window of the record begins.
    chosen
        Columns drawn one by one, spread over the charges' final values.
    theory
        Law → the chosen charges: (points, chosen).
    error
        Law → RMS over charges of theory − measured, relative to the RMS of measured: (points,).
    parameters, singles
        Single parameters, (points, parameters), and for each its name and the charge that it is part of.
    """

    step: NDArray[np.int64]
    lr: Array
    measured: Array
    chosen: NDArray[np.int64]
    theory: dict[str, Array]
    error: dict[str, Array]
    parameters: Array = field(default_factory=lambda: np.empty((0, 0)))
    singles: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class LossCurve:
    """L_k − L_0 at some steps, measured, and predicted to each order."""

    step: NDArray[np.int64]
    measured: Array
    predicted: dict[str, Array]


@dataclass(frozen=True)
class BatchCurve:
    """How far into training a prediction holds: relative RMS error over the charges of a family at some steps."""

    family: str
    source: int
    target: int
    step: NDArray[np.int64]
    error: Array


def sampled(rows: int) -> NDArray[np.int64]:
    """Rows kept for curves: evenly spread, first and last among them."""
    return np.unique(np.linspace(0, rows - 1, min(POINTS, rows)).astype(np.int64))


def inside(index: NDArray[np.int64], rows: slice) -> NDArray[np.int64]:
    """Which of some rows, given by number, lie in a block."""
    return np.flatnonzero((index >= rows.start) & (index < rows.stop))


def spread(final: Array, count: int) -> NDArray[np.int64]:
    """Columns of up to `count` charges, spread evenly over the charges' final values."""
    order = np.argsort(final, kind="stable")
    at = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.int64))
    return order[at]


def with_gaps(record: Record, kept: NDArray[np.int64], curves: Curves) -> Curves:
    """NaN where a window of the record begins, so that no line is drawn over steps that were not recorded.

    `kept` are the record's rows that the curves hold.
    """
    gaps = np.searchsorted(kept, [window.start for window in record.windows[1:]])

    def cut(values: Array) -> Array:
        return np.insert(values, gaps, np.nan, axis=0)

    return replace(
        curves,
        step=np.insert(curves.step, gaps, curves.step[gaps]),
        lr=cut(curves.lr),
        measured=cut(curves.measured),
        theory={name: cut(values) for name, values in curves.theory.items()},
        error={name: cut(values) for name, values in curves.error.items()},
        parameters=cut(curves.parameters),
    )
