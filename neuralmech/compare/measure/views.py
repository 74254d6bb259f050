"""Families as laws see them: the recorded ones, and under Adam the same charges in its metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool
from numpy.typing import NDArray

from neuralmech.laws.system import Array
from neuralmech.record import Charges, Record

METRIC = "_metric"  # what the name of a family in the metric ends with


class InMetric:
    """A family's metric charges as a family of their own: `value` is θᵀSwθ, `plain_charge` is θᵀSθ.

    Of a matrix-valued charge the diagonal alone: off it, the metric and the generator do not commute, and θᵀSwθ obeys
    no law.
    """

    norm_sites: tuple[str, ...] = ()

    def __init__(self, charges: Charges) -> None:
        self._charges = charges
        self.name, self.is_translation = charges.name + METRIC, charges.is_translation
        self.columns: NDArray[np.int64] = np.flatnonzero(diagonal(charges.index))
        self.index = charges.index.iloc[self.columns].drop(columns="partner", errors="ignore").reset_index(drop=True)
        self.signals = (*charges.signals, "plain_charge")
        self.parameter_index = charges.parameter_index.iloc[:0]

    def __len__(self) -> int:
        return len(self.columns)

    def __getattr__(self, name: str) -> _Columns:
        of = {"value": "metric_value", "plain_charge": "value"}.get(name, name)
        return _Columns(getattr(self._charges, of), self.columns)


class _Columns:
    """Some columns of a signal."""

    def __init__(self, signal: Any, columns: NDArray[np.int64]) -> None:
        self._signal, self._columns = signal, columns
        self.shape = (signal.shape[0], len(columns))

    def __getitem__(self, rows: Any) -> Array:
        return self._signal[rows][..., self._columns]


Family = Charges | InMetric


def families(record: Record) -> tuple[str, ...]:
    """Names of all families of a record, each followed by itself in Adam's metric, if it is there."""
    out: list[str] = []
    for name in record.families:
        has_metric = "metric_value" in record.charges(name).signals
        out += [name, name + METRIC] if has_metric else [name]
    return tuple(out)


def family(record: Record, name: str) -> Family:
    """A family by its name."""
    if name.endswith(METRIC) and name not in record.families:
        return InMetric(record.charges(name.removesuffix(METRIC)))
    return record.charges(name)


def diagonal(index: pd.DataFrame) -> Bool[NDArray, " charges"]:
    """Which charges are no entries off the diagonal of a matrix."""
    if "partner" not in index:
        return np.ones(len(index), dtype=bool)
    return (index["channel"] == index["partner"]).to_numpy()
