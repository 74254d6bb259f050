"""How weights are cut into tiles on a GPU, and how the sums of charges are put together from those of tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.symmetry.linear_plan import WholeRows
from neuralmech.symmetry.plan import NONE, Ints, QuadraticPlan

COLUMNS = 128  # of a tile, at most
MANY = 1 << 26  # parameters from which on tiles have more rows, so that their sums stay a small share of θ
ROWS, ROWS_OF_MANY = 64, 512
FIELDS = ("start", "rows", "columns", "width", "row_place", "column_place")


@dataclass(frozen=True)
class Tiles:
    """Every entry that a charge reads, in exactly one tile for each block of the plan.

    Attributes
    ----------
    table
        One row per tile, with the columns `FIELDS`: its first entry, rows and columns, entries from a row to the next,
        and where its row sums and column sums go (`NONE`: nowhere).
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


def column_tiles(rows: WholeRows, size: int) -> Tiles:
    """The same for weights whose rows are added up; `row_place` is here that of the first row's coefficient."""
    cuts, charges, data = [], [], []
    ends = np.append(rows.blocks[1:, 2], len(rows.coefficients))
    for (offset, width, first, place, charge), end in zip(rows.blocks.tolist(), ends.tolist(), strict=True):
        cuts.append(_Cut(_most(size), offset, 1, end - first, width, 1, NONE, place))
        charges.append(charge + np.arange(width))
        data.append(place + np.arange(width))
    places = tuple(np.concatenate([np.zeros(0, dtype=np.int64), *part]) for part in (charges, data))
    combine = sparse.csr_array((np.ones(len(places[0])), places), shape=(rows.rest.charges, rows.sums))
    cut = _combined(cuts, combine)
    of_tile = np.searchsorted(rows.blocks[:, 0], cut.table[:, 0], side="right") - 1
    offset, width, first = rows.blocks[of_tile, :3].T
    cut.table[:, FIELDS.index("row_place")] = first + (cut.table[:, 0] - offset) // width
    return cut


def _most(size: int) -> int:
    """Rows of a tile."""
    return ROWS if size < MANY else ROWS_OF_MANY


def _combined(cuts: Sequence[_Cut], combine: sparse.csr_array) -> Tiles:
    """All tiles, and the charges as combinations of their sums; `combine` is charges × the plan's sums."""
    tables, members, count = [np.zeros((0, len(FIELDS)), dtype=np.int64)], [], 0
    for cut in cuts:
        of_sum = list(cut.members(count))
        tables.append(cut.table(count))
        members += of_sum
        count += sum(sums.size for sums, _ in of_sum)
    parts, whole = ([pair[k] for pair in members] for k in range(2))
    places = tuple(np.concatenate([np.zeros(0, dtype=np.int64), *some]) for some in (whole, parts))
    belongs = sparse.csr_array((np.ones(len(places[0])), places), shape=(combine.shape[1], count))
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
        out[:, 0] = self.offset + above * self.width + column
        out[:, 1] = np.minimum(self.most, self.rows - row)
        out[:, 2] = np.minimum(COLUMNS, self.width - column)
        out[:, 3] = self.width
        if self.row_place != NONE:
            out[:, 4] = first + column // COLUMNS * (self.groups * self.rows) + above
        if self.column_place != NONE:
            behind = first + self.row_sums
            out[:, 5] = behind + row // self.most * (self.groups * self.width) + group * self.width + column
        return out

    def members(self, first: int) -> Iterator[tuple[NDArray, NDArray]]:
        """The sums of tiles, and which of the plan's sums each belongs to."""
        if self.row_place != NONE:
            rows = self.row_place + np.arange(self.groups * self.rows)
            yield first + np.arange(self.row_sums), np.tile(rows, -(-self.width // COLUMNS))
        if self.column_place != NONE:
            columns = self.column_place + np.repeat(np.arange(self.groups * self.inner), self.taps)
            sums = np.tile(columns, -(-self.rows // self.most))
            yield first + self.row_sums + np.arange(sums.size), sums
