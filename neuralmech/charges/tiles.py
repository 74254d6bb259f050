"""How weights are cut into tiles on a GPU, and how the sums of charges are put together from those of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.charges.plan import NONE, Ints, QuadraticPlan, joined
from neuralmech.charges.translation_plan import TranslationPlan, WholeRows

COLUMNS = 128  # of a tile, at most
MANY = 1 << 26  # parameters from which on tiles have more rows, so that their sums stay a small share of θ
ROWS, ROWS_OF_MANY = 64, 512
FIELDS = ("start", "rows", "columns", "stride", "row_place", "column_place", "coefficient")


@dataclass(frozen=True)
class Tiles:
    """Every entry that a charge reads, in exactly one tile for each block of the plan.

    Attributes
    ----------
    table
        One row per tile, with the columns `FIELDS`: its first entry, rows and columns, entries from a row to the next,
        where its row sums and column sums go (`NONE`: nowhere), and the coefficient of its first row in column sums.
    sums
        Number of these sums.
    combine
        Charges × sums.
    """

    table: Ints
    sums: int
    combine: sparse.csr_array


def tiles(plan: QuadraticPlan, size: int) -> Tiles:
    """Cut what a plan sums, out of a vector of `size` entries."""
    return _combined([_Cut(_most(size), *block) for block in plan.blocks.tolist()], plan.combine)


@dataclass(frozen=True)
class TranslationTiles:
    """The same for translation charges; `rest` are pieces whose entries are charges one by one.

    Column sums are of rows times their `coefficients`.
    """

    tiles: Tiles
    coefficients: NDArray[np.float64]
    rest: TranslationPlan


def translation_tiles(rows: WholeRows, size: int) -> TranslationTiles:
    """Cut weights whose rows are added up, and pieces whose rows or columns are."""
    most, plan, ones = _most(size), rows.rest, len(rows.coefficients)
    cuts: list[_Cut] = []
    charges: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float64]] = []
    count = 0

    def add(cut: _Cut, first: int, step: int, weight: float) -> None:
        nonlocal count
        sums = cut.rows if cut.column_place == NONE else cut.inner
        cuts.append(cut)
        charges.append(first + step * np.arange(sums))
        weights.append(np.full(sums, weight))
        count += sums

    ends = np.append(rows.blocks[1:, 2], ones)[: len(rows.blocks)]
    for (offset, width, first, _, charge), end in zip(rows.blocks.tolist(), ends.tolist(), strict=True):
        add(_Cut(most, offset, 1, end - first, width, 1, NONE, count, width, first), charge, 1, 1.0)
    outer, _, _, _, outer_step, inner_step = plan.pieces[:, 1:].T
    is_summed = (inner_step == 0) | ((outer_step == 0) & (outer > 1))
    for piece, weight in zip(plan.pieces[is_summed].tolist(), plan.coefficients[is_summed].tolist(), strict=True):
        offset, n, stride, width, charge, step, is_by_column = piece
        places = (NONE, count) if is_by_column else (count, NONE)
        add(_Cut(most, offset, 1, n, width, 1, *places, stride, ones), charge, 1 if is_by_column else step, weight)
    triple = (joined(weights), (joined(charges).astype(np.int64), np.arange(count)))
    cut = _combined(cuts, sparse.csr_array(triple, shape=(plan.charges, count)))
    coefficients = np.append(rows.coefficients, np.ones(outer[is_summed].max(initial=0)))
    return TranslationTiles(cut, coefficients, plan.only(~is_summed))


def _most(size: int) -> int:
    """Rows of a tile."""
    return ROWS if size < MANY else ROWS_OF_MANY


def _combined(cuts: Sequence[_Cut], combine: sparse.csr_array) -> Tiles:
    """All tiles, and the charges as combinations of their sums; `combine` is charges × the plan's sums."""
    tables, places, count = [np.zeros((0, len(FIELDS)), dtype=np.int64)], [], 0
    for cut in cuts:
        tables.append(cut.table(count))
        places += (mine := cut.places())
        count += sum(map(len, mine))
    triple = (np.ones(count), (joined(places).astype(np.int64), np.arange(count)))
    belongs = sparse.csr_array(triple, shape=(combine.shape[1], count))
    return Tiles(np.concatenate(tables), count, sparse.csr_array(combine @ belongs))


@dataclass(frozen=True)
class _Cut:
    """A block of the plan, and how it is cut; the sums of its tiles are those of rows, then those of columns."""

    most: int
    offset: int
    groups: int
    rows: int
    inner: int
    taps: int
    row_place: int
    column_place: int
    stride: int = 0  # entries from a row to the next, if they are not a row's
    coefficient: int = 0

    @property
    def width(self) -> int:
        return self.inner * self.taps

    @property
    def row_sums(self) -> int:
        """One per row and column of tiles."""
        return 0 if self.row_place == NONE else self.groups * self.rows * -(-self.width // COLUMNS)

    def table(self, first: int) -> Ints:
        """A row per tile: group by group, row by row."""
        group, row, column = (
            part.ravel()
            for part in np.meshgrid(
                np.arange(self.groups),
                np.arange(0, self.rows, self.most),
                np.arange(0, self.width, COLUMNS),
                indexing="ij",
            )
        )
        out = np.full((group.size, len(FIELDS)), NONE, dtype=np.int64)
        above = group * self.rows + row
        stride = self.stride or self.width
        out[:, 0] = self.offset + above * stride + column
        out[:, 1] = np.minimum(self.most, self.rows - row)
        out[:, 2] = np.minimum(COLUMNS, self.width - column)
        out[:, 3], out[:, 6] = stride, self.coefficient + row
        if self.row_place != NONE:
            out[:, 4] = first + column // COLUMNS * (self.groups * self.rows) + above
        if self.column_place != NONE:
            behind = first + self.row_sums
            out[:, 5] = behind + row // self.most * (self.groups * self.width) + group * self.width + column
        return out

    def places(self) -> list[NDArray[np.int64]]:
        """Which of the plan's sums each sum of a tile belongs to: row sums first."""
        found = []
        if self.row_place != NONE:
            rows = self.row_place + np.arange(self.groups * self.rows)
            found.append(np.tile(rows, -(-self.width // COLUMNS)))
        if self.column_place != NONE:
            columns = self.column_place + np.repeat(np.arange(self.groups * self.inner), self.taps)
            found.append(np.tile(columns, -(-self.rows // self.most)))
        return found
