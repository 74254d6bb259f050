"""What rows of a record are made of, before they are in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FamilyLayout:
    """What a family's datasets look like: one column per charge, one dataset per signal.

    A column of a matrix-valued charge is its entry (channel, partner); `norms` names the sites whose Frobenius
    norms are recorded besides, `parameters` single parameters: name, entry, and the charge's column that it is part of.
    """

    sites: Sequence[str]
    channels: Sequence[int] | NDArray[np.int64]
    signals: Sequence[str]
    translation: bool
    partners: Sequence[int] | NDArray[np.int64] | None = None
    norms: Sequence[str] = ()
    parameters: Sequence[tuple[str, int, int]] = ()

    @property
    def columns(self) -> dict[str, int]:
        """Columns of each dataset."""
        besides = {"frobenius": len(self.norms), "parameters": len(self.parameters)}
        return {**dict.fromkeys(self.signals, len(self.sites)), **{name: n for name, n in besides.items() if n}}

    @property
    def width(self) -> int:
        """Numbers per row."""
        return sum(self.columns.values())


@dataclass(frozen=True)
class Rows:
    """Rows in memory: a column for every entry of `steps`, (rows, charges) for every family and signal."""

    steps: Mapping[str, NDArray]
    charges: Mapping[str, Mapping[str, NDArray[np.float64]]]

    def __len__(self) -> int:
        return len(self.steps["step"]) if self.steps else 0

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """One block out of several."""
        first = parts[0]
        return Rows(
            {name: np.concatenate([p.steps[name] for p in parts]) for name in first.steps},
            {
                family: {s: np.concatenate([p.charges[family][s] for p in parts]) for s in signals}
                for family, signals in first.charges.items()
            },
        )

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(
            {name: values[rows] for name, values in self.steps.items()},
            {f: {s: values[rows] for s, values in signals.items()} for f, signals in self.charges.items()},
        )

    @property
    def bytes(self) -> int:
        """Size before compression."""
        return 8 * sum(v.size for part in (self.steps, *self.charges.values()) for v in part.values())


@dataclass(frozen=True)
class Position:
    """A place in a record: rows in whole chunks, evaluations, and the rows that wait for their chunk to fill."""

    rows: int
    evaluations: int
    waiting: Rows
