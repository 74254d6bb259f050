"""What must be summed to have every charge: rectangles of the flat vector, and the charges that their sums make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from neuralmech.symmetry.family import Family, Term
from neuralmech.symmetry.layout import Layout

NONE = -1
# A rectangle of the flat vector: entry (i, j) of `rows` × `columns` is at start + i·stride + j. What becomes of it is
# told by the fields that are set:
# · row_place, column_place: where the sum of its first row and of its first column go, the others behind them
#   (`NONE`: nowhere); `taps` columns side by side, those of a kernel, have one sum.
# · weighed_place: where the sums of columns go of which each row is times a coefficient, the first times that number
#   `coefficient`.
# · charge, row_step, column_step: entry (i, j) times `weight` is a part of charge + i·row_step + j·column_step.
# · parameter: the number of the parameter that it lies in; kept: whether θ_k and g are needed there after the step.
# All are 8 bytes, so that an array of rectangles is a table for what reads no names: a GPU's kernels.
RECTANGLE = np.dtype([
    *((name, np.int64) for name in ("start", "rows", "columns", "stride", "row_place", "column_place", "coefficient")),
    *((name, np.int64) for name in ("taps", "weighed_place", "parameter", "kept")),
    *((name, np.int64) for name in ("charge", "row_step", "column_step")), ("weight", np.float64),
], align=True)  # fmt: skip
FIELDS = RECTANGLE.names or ()
Rectangles = NDArray[np.void]
_USUAL = {"rows": 1, "taps": 1, "row_place": NONE, "column_place": NONE, "weighed_place": NONE, "weight": 1.0}


def rectangles(**fields: ArrayLike) -> Rectangles:
    """Rectangles from their fields; by default of one row, without gaps, and summed to nowhere.

    Examples
    --------
    >>> rectangles(start=[0, 6], rows=2, columns=3, row_place=[0, 2])[["start", "stride", "row_place"]].tolist()
    [(0, 3, 0), (6, 3, 2)]
    """
    given: dict[str, Any] = _USUAL | {"stride": fields["columns"]} | fields
    out = np.zeros(np.broadcast_shapes(*(np.atleast_1d(value).shape for value in given.values())), dtype=RECTANGLE)
    for name, value in given.items():
        out[name] = value
    return out


NO_ROWS = rectangles(start=[], columns=[])


def together(parts: Sequence[Rectangles]) -> Rectangles:
    """One array, if only an empty one."""
    return np.concatenate([np.zeros(0, dtype=RECTANGLE), *parts])


def alike(table: Rectangles, *, adjacent: bool = False) -> list[Rectangles]:
    """Cut a table where a shape differs from the one before; with `adjacent` where there is a gap, too."""
    differs = np.diff(table["row_place"] == NONE) | np.diff(table["column_place"] == NONE)
    for name in ("rows", "columns", "stride", "taps"):
        differs |= np.diff(table[name]) != 0
    if adjacent:
        differs |= np.diff(table["start"]) != (table["rows"] * table["columns"])[:-1]
    return np.split(table, np.flatnonzero(differs) + 1) if len(table) else []


@dataclass(frozen=True)
class QuadraticPlan:
    """Diagonal charges of all families together: sums over rows and columns of weights, put together sparsely.

    Attributes
    ----------
    table
        Rectangles with `row_place` and `column_place`; those of a parameter follow one another and cover it, some
        parameters twice. A weight of a grouped convolution has one for each group.
    sums
        Number of sums.
    combine
        Charges × sums.
    """

    table: Rectangles
    sums: int
    combine: sparse.csr_array

    @property
    def charges(self) -> int:
        """Number of charges."""
        return self.combine.shape[0]


@dataclass(frozen=True)
class TranslationPlan:
    """Translation charges: pieces of the vector, times weights, added to charges.

    What is no more than one entry is in `entries` (charges × parameters) instead of `pieces`.
    """

    pieces: Rectangles
    entries: sparse.csr_array

    @property
    def charges(self) -> int:
        """Number of charges."""
        return self.entries.shape[0]

    def only(self, chosen: Bool[NDArray, " pieces"]) -> TranslationPlan:
        """Some of the pieces, and all single entries."""
        return TranslationPlan(self.pieces[chosen], self.entries)


@dataclass(frozen=True)
class Plan:
    """All charges of diagonal families, then all of translation families, of parameters that lie as `layout` says."""

    quadratic: QuadraticPlan
    translation: TranslationPlan
    layout: Layout

    @property
    def charges(self) -> int:
        """Number of charges."""
        return self.quadratic.charges + self.translation.charges


def plan_of(diagonal: Sequence[Family], translation: Sequence[Family], layout: Layout) -> Plan:
    """Plan the charges of some families, in their order."""
    return Plan(quadratic_plan(diagonal, layout), translation_plan(translation, layout), layout)


def of_tensors(families: Sequence[Family], layout: Layout) -> Family:
    """|θ|² of each parameter tensor, in the layout's order, as scale charges of sums that `families` need anyway.

    Of a tensor that is in none of them rows are summed.
    """
    summed: dict[str, Term] = {}
    for term in (t for f in families for t in f.terms):
        if (other := summed.get(term.parameter)) is None or _elements(term) < _elements(other):
            summed[term.parameter] = term
    terms = []
    for n, (name, shape) in enumerate(layout.shapes.items()):
        term, row = summed.get(name), (shape if len(shape) > 1 and 0 not in shape else (1, math.prod(shape)))
        count = row[0] if term is None else _elements(term)
        whole, first = sparse.csr_array(np.ones((1, count))), np.array([n])
        terms.append(
            Term(name, "rows", whole, first, view=row)
            if term is None
            else replace(term, coefficients=whole, first=first, width=1)
        )
    return Family("scale", tuple(terms), tuple(layout.shapes), np.zeros(len(terms), dtype=np.int64))


def _elements(term: Term) -> int:
    return term.coefficients.shape[1]


def quadratic_plan(families: Sequence[Family], layout: Layout) -> QuadraticPlan:
    """Plan the sums for scale and rescale families, in the families' order."""
    places, table, size = _summed([t for f in families for t in f.terms], layout)
    rows, columns, data, first = [], [], [], 0
    for family in families:
        for term in family.terms:
            part = term.coefficients.tocoo()
            rows.append(first + term.first[part.row])
            columns.append(places[term.axis, term.parameter] + part.col)
            data.append(part.data)
        first += len(family)
    triple = (joined(data), (joined(rows).astype(np.int64), joined(columns).astype(np.int64)))
    return QuadraticPlan(table, size, sparse.csr_array(triple, shape=(first, size)))


def _summed(terms: Sequence[Term], layout: Layout) -> tuple[dict[tuple[str, str], int], Rectangles, int]:
    """Where the sums of each (axis, parameter) begin, what is summed to there, and the number of sums."""
    needed: dict[tuple[str, bool], dict[str, int]] = {}
    seen: dict[str, Sequence[int]] = {}
    for term in terms:
        needed.setdefault((term.parameter, term.axis == "entries"), {})[term.axis] = term.groups
        seen[term.parameter] = term.shape(layout.shapes)
    number = {name: n for n, name in enumerate(layout.shapes)}
    places: dict[tuple[str, str], int] = {}
    parts, size = [], 0
    for (name, by_entry), axes in sorted(needed.items(), key=lambda item: layout.offsets[item[0][0]]):
        shape, start = seen[name], layout.offsets[name]
        if by_entry:  # a column for each entry
            places["entries", name] = size
            parts.append(rectangles(start=start, columns=math.prod(shape), column_place=size, parameter=number[name]))
            size += math.prod(shape)
            continue
        inner, taps = (shape[1], math.prod(shape[2:])) if "columns" in axes else (math.prod(shape[1:]), 1)
        group = np.arange(axes.get("columns", 1))
        rows, width = shape[0] // len(group), inner * taps
        at: dict[str, Any] = {"rows": NONE, "columns": NONE}
        for axis, each in (("rows", rows), ("columns", inner)):
            if axis in axes:
                places[axis, name] = size
                at[axis] = size + group * each
                size += len(group) * each
        part = rectangles(start=start + group * rows * width, rows=rows, columns=width, taps=taps)
        part["row_place"], part["column_place"], part["parameter"] = at["rows"], at["columns"], number[name]
        parts.append(part)
    table = together(parts)
    return places, table[table["rows"] * table["columns"] > 0], size


def translation_plan(families: Sequence[Family], layout: Layout) -> TranslationPlan:
    """Plan the sums for translation families, in the families' order."""
    number = {name: n for n, name in enumerate(layout.shapes)}
    parts, first = [], 0
    for family in families:
        for term in family.terms:
            pieces = _merged(_pieces(term, first, layout))
            pieces["parameter"] = number[term.parameter]
            parts.append(pieces)
        first += len(family)
    table = together(parts)
    is_entry = table["rows"] * table["columns"] == 1
    single = table[is_entry]
    entries = sparse.csr_array((single["weight"], (single["charge"], single["start"])), shape=(first, layout.size))
    return TranslationPlan(table[~is_entry], entries)


def _pieces(term: Term, first: int, layout: Layout) -> Rectangles:
    """A piece for each coefficient of a term: what lies under an element of its axis."""
    part, start, shape = term.coefficients.tocoo(), layout.offsets[term.parameter], term.shape(layout.shapes)
    size, element = math.prod(shape), part.col.astype(np.int64)
    rows, stride, columns = 1, 0, 1
    if term.axis == "rows":
        columns = size // shape[0]
        element *= columns
    elif term.axis == "columns":  # of each group, a column of kernels
        rows, stride, columns = shape[0] // term.groups, size // shape[0], math.prod(shape[2:])
        element = element // shape[1] * (size // term.groups) + element % shape[1] * columns
    # A term of several charges has one for each entry, and all entries of a piece of a narrow one are one charge's.
    row_step, column_step = (0, 0) if term.width == 1 else (columns, 1)
    return rectangles(
        **{"start": start + element, "rows": rows, "columns": columns, "stride": stride},
        **{"charge": first + term.first[part.row], "row_step": row_step, "column_step": column_step},
        weight=part.data,
    )


def _merged(table: Rectangles) -> Rectangles:
    """Join pieces side by side, which are of one charge or of one after the other: memory is then read in order.

    A translation of all columns of a weight comes as a column for each; as pieces they would be read with a stride as
    long as a row, entry by entry. Joined, they are rows.
    """
    before, after = table[:-1], table[1:]
    beside = (after["start"] == before["start"] + before["columns"]) & (after["weight"] == before["weight"])
    step, thin = after["charge"] - before["charge"], after["columns"] == 1
    # Into one charge: whatever is added up in it already. Into neighbours: single columns, each of one charge.
    summed = beside & (step == 0) & (thin | (after["column_step"] == 0))
    counted = beside & (step == 1) & thin & ((after["rows"] == 1) | (after["row_step"] == 0))
    kind = int(counted.sum() > summed.sum())  # a chain is of one kind: the one that joins more
    begins = np.flatnonzero(np.concatenate([[True], ~(counted if kind else summed)])[: len(table)])
    if len(begins) == len(table):
        return table
    out = table[begins]
    out["columns"] = np.add.reduceat(table["columns"], begins)
    out["column_step"] = np.where(np.diff(np.append(begins, len(table))) > 1, kind, out["column_step"])
    return out


@dataclass(frozen=True)
class WholeRows:
    """Of translation charges: weights whose rows, each times a coefficient, are added up.

    Attributes
    ----------
    table
        One rectangle per weight, with `weighed_place`, `coefficient` and the first `charge`.
    coefficients
        One per row, weight by weight.
    sums
        Number of sums.
    rest
        Everything else.
    """

    table: Rectangles
    coefficients: NDArray[np.float64]
    sums: int
    rest: TranslationPlan


def whole_rows(plan: Plan, first: int) -> WholeRows:
    """Tell apart the weights that can be summed with those of the quadratic plan, row by row.

    They are where every entry of a row goes to the same charge plus its column, whatever the row: then a pass that has
    the row in its registers anyway adds it to the sums of columns, and reads nothing again. Their sums go to `first`
    and on.
    """
    pieces = plan.translation.pieces
    is_rest, sums, found = np.ones(len(pieces), dtype=bool), first, []
    coefficients: list[NDArray[np.float64]] = []
    for n in np.unique(pieces["parameter"]):
        offset, shape = (list(of.values())[n] for of in (plan.layout.offsets, plan.layout.shapes))
        at, width = np.flatnonzero(pieces["parameter"] == n), math.prod(shape[1:])
        mine, other = pieces[at], plan.quadratic.table[plan.quadratic.table["parameter"] == n]
        # A strip of the pass is all rows of the weight, one after the other; groups and single entries are cut finer.
        is_cut = other["rows"] != shape[0]
        is_whole = (mine["columns"] == width) & ((mine["start"] - offset) % max(width, 1) == 0)
        is_next = (mine["rows"] == 1) | ((mine["stride"] == width) & (mine["row_step"] == 0))
        is_row = is_whole & (mine["column_step"] == 1) & is_next
        if shape[0] == 1 or not is_row.any() or np.ptp(mine["charge"][is_row]) or is_cut.any():
            continue
        mine, weights = mine[is_row], np.zeros(shape[0])
        for piece in mine:
            row = (piece["start"] - offset) // width
            weights[row : row + piece["rows"]] += piece["weight"]
        part = rectangles(start=offset, rows=shape[0], columns=width, parameter=n, charge=mine["charge"][0])
        part["weighed_place"], part["coefficient"] = sums, sum(map(len, coefficients))
        found.append(part)
        coefficients.append(weights)
        is_rest[at[is_row]] = False
        sums += width
    return WholeRows(together(found), joined(coefficients), sums - first, plan.translation.only(is_rest))


def joined(parts: Sequence[Shaped[NDArray, " _"]]) -> Shaped[NDArray, " joined"]:
    """One array, if only an empty one."""
    return np.concatenate([np.zeros(0), *parts])
