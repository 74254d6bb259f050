"""How weights are cut into tiles on a GPU, and how the sums of charges are put together from those of tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from neuralmech.charges.plan import NONE, QuadraticPlan, Rectangles, TranslationPlan, WholeRows, alike, joined, together

COLUMNS = 128  # of a tile, at most
MANY = 1 << 26  # parameters from which on tiles have more rows, so that their sums stay a small share of θ
ROWS, ROWS_OF_MANY = 64, 512


@dataclass(frozen=True)
class Tiles:
    """Every entry that a charge reads, in exactly one tile for each rectangle of the plan.

    Attributes
    ----------
    table
        The tiles, with `row_place` and `column_place`; `coefficient` is that of their first row in column sums.
    sums
        Number of these sums.
    combine
        Charges × sums.
    """

    table: Rectangles
    sums: int
    combine: sparse.csr_array


@dataclass(frozen=True)
class TranslationTiles:
    """The same for translation charges; `rest` are pieces whose entries are charges one by one.

    Column sums are of rows times their `coefficients`.
    """

    tiles: Tiles
    coefficients: NDArray[np.float64]
    rest: TranslationPlan


def tiles(plan: QuadraticPlan, size: int) -> Tiles:
    """Cut what a plan sums, out of a vector of `size` entries."""
    return _cut(plan.table, plan.combine, size)


def translation_tiles(rows: WholeRows, size: int) -> TranslationTiles:
    """Cut weights whose rows are added up, and pieces whose rows or columns are."""
    pieces = rows.rest.pieces
    is_summed = (pieces["column_step"] == 0) | ((pieces["row_step"] == 0) & (pieces["rows"] > 1))
    table = together([rows.table, pieces[is_summed]])
    is_piece = np.arange(len(table)) >= len(rows.table)
    table["coefficient"][is_piece] = len(rows.coefficients)  # ones, behind those of whole rows
    table["weight"][~is_piece] = 1.0
    # The sums of each are one after the other, and belong to one charge each.
    by_column = ~is_piece | (table["column_step"] == 1)
    counts = np.where(by_column, table["columns"], table["rows"])
    firsts = np.cumsum(counts) - counts
    table["row_place"], table["column_place"] = np.where(by_column, NONE, firsts), np.where(by_column, firsts, NONE)
    count = int(counts.sum())
    number = np.arange(count) - np.repeat(firsts, counts)
    charges = np.repeat(table["charge"], counts) + np.repeat(np.where(by_column, 1, table["row_step"]), counts) * number
    triple = (np.repeat(table["weight"], counts), (charges, np.arange(count)))
    cut = _cut(table, sparse.csr_array(triple, shape=(rows.rest.charges, count)), size)
    ones = np.ones(pieces["rows"][is_summed].max(initial=0))
    return TranslationTiles(cut, np.append(rows.coefficients, ones), rows.rest.only(~is_summed))


def _cut(table: Rectangles, combine: sparse.csr_array, size: int) -> Tiles:
    """All tiles, and the charges as combinations of their sums; `combine` is charges × the sums of rectangles."""
    most = ROWS if size < MANY else ROWS_OF_MANY
    parts, places, count = [], [], 0
    for run in alike(table):
        cut = _Cut(run, most, count)
        parts.append(cut.tiles())
        places += (mine := cut.places())
        count += sum(map(len, mine))
    triple = (np.ones(count), (joined(places).astype(np.int64), np.arange(count)))
    belongs = sparse.csr_array(triple, shape=(combine.shape[1], count))
    return Tiles(together(parts), count, sparse.csr_array(combine @ belongs))


@dataclass(frozen=True)
class _Cut:
    """Rectangles of one shape, and how they are cut; the sums of their tiles are those of rows, then of columns.

    Row sums lie tile column by tile column, so that those of a whole rectangle side by side make one sum of the plan's;
    column sums lie tile row by tile row.
    """

    run: Rectangles
    most: int  # rows of a tile
    first: int  # of the sums

    @property
    def rows(self) -> int:
        return int(self.run["rows"][0])

    @property
    def columns(self) -> int:
        return int(self.run["columns"][0])

    @property
    def row_sums(self) -> int:
        """One per row and column of tiles."""
        return 0 if self.run["row_place"][0] == NONE else len(self.run) * self.rows * -(-self.columns // COLUMNS)

    def tiles(self) -> Rectangles:
        """Rectangle by rectangle, row by row."""
        firsts = np.arange(len(self.run)), np.arange(0, self.rows, self.most), np.arange(0, self.columns, COLUMNS)
        which, row, column = (part.ravel() for part in np.meshgrid(*firsts, indexing="ij"))
        out = self.run[which]
        above = which * self.rows + row
        out["start"] += row * out["stride"] + column
        out["coefficient"] += row
        out["rows"], out["columns"] = np.minimum(self.most, self.rows - row), np.minimum(COLUMNS, self.columns - column)
        if self.run["row_place"][0] != NONE:
            out["row_place"] = self.first + column // COLUMNS * (len(self.run) * self.rows) + above
        if self.run["column_place"][0] != NONE:
            behind = self.first + self.row_sums
            out["column_place"] = behind + (row // self.most * len(self.run) + which) * self.columns + column
        return out

    def places(self) -> list[NDArray[np.int64]]:
        """Which of the plan's sums each sum of a tile belongs to: row sums first."""
        found, taps = [], int(self.run["taps"][0])
        if self.run["row_place"][0] != NONE:
            rows = self.run["row_place"][:, None] + np.arange(self.rows)
            found.append(np.tile(rows.ravel(), -(-self.columns // COLUMNS)))
        if self.run["column_place"][0] != NONE:
            columns = self.run["column_place"][:, None] + np.arange(self.columns) // taps
            found.append(np.tile(columns.ravel(), -(-self.rows // self.most)))
        return found
