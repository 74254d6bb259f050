"""Rows of a comparison that figures draw."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float64, Int64
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
        Of each row.
    measured
        All charges; NaN, as all curves, where a window of the record begins.
    chosen
        Columns drawn one by one, spread over the charges' final values.
    theory
        Law → the chosen charges.
    error
        Law → RMS over charges of theory − measured, relative to the RMS of measured.
    names
        Of the chosen charges: site and channel.
    parameters, singles
        Single parameters, and for each its name and the charge that it is part of.
    """

    step: Int64[NDArray, " points"]
    lr: Float64[Array, " points"]
    measured: Float64[Array, "points charges"]
    chosen: Int64[NDArray, " chosen"]
    theory: dict[str, Float64[Array, "points chosen"]]
    error: dict[str, Float64[Array, " points"]]
    names: tuple[str, ...] = ()
    parameters: Float64[Array, "points parameters"] = field(default_factory=lambda: np.empty((0, 0)))
    singles: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class LossCurve:
    """L_k − L_0 at some steps, measured, and predicted to each order."""

    step: Int64[NDArray, " points"]
    measured: Float64[Array, " points"]
    predicted: dict[str, Float64[Array, " points"]]


@dataclass(frozen=True)
class BatchCurve:
    """How far into training a prediction holds: relative RMS error over the charges of a family at some steps."""

    family: str
    source: int
    target: int
    step: Int64[NDArray, " points"]
    error: Float64[Array, " points"]


def sampled(rows: int) -> Int64[NDArray, " kept"]:
    """Rows kept for curves: evenly spread, first and last among them."""
    return np.unique(np.linspace(0, rows - 1, min(POINTS, rows)).astype(np.int64))


def inside(index: Int64[NDArray, " kept"], rows: slice) -> Int64[NDArray, " inside"]:
    """Which of some rows, given by number, lie in a block."""
    return np.flatnonzero((index >= rows.start) & (index < rows.stop))


def spread(final: Float64[Array, " charges"], count: int) -> Int64[NDArray, " chosen"]:
    """Columns of up to `count` charges, spread evenly over the charges' final values."""
    order = np.argsort(final, kind="stable")
    at = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.int64))
    return order[at]


def with_gaps(record: Record, kept: Int64[NDArray, " kept"], curves: Curves) -> Curves:
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
