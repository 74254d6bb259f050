"""How a pass over all parameters is cut into strips: rows of a weight that one thread takes, one after the other."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from neuralmech.charges.plan import NONE, Ints
from neuralmech.symmetry.layout import Layout

FIELDS = (
    *("parameter", "start", "offset", "rows", "width", "taps"),
    *("row_place", "column_place", "kept", "weighed_place", "coefficient"),
)
NOT_WEIGHED = (NONE, 0, 0, NONE, NONE)
CHUNK = 1 << 13  # entries of a row, where nothing is summed over rows


@dataclass(frozen=True)
class Strips:
    """All parameters, each exactly once.

    Attributes
    ----------
    parts
        One table per thread, of about the same number of entries each. A row is a strip, with the columns `FIELDS`:
        number of the parameter, first entry within it and in the flat vector, rows, entries of a row, kernel taps,
        where its row sums and column sums go (`NONE`: nowhere; behind the plan's sums: to the shared ones), whether
        θ_k and g are kept, where the sum of its rows goes, and the coefficient of the first.
    shared
        Number of shared sums.
    halves
        Sums over rows that several strips share: where the first's are, where among the shared sums another's are, how
        many.
    rest
        Blocks of the plan on parameters that have one already.
    """

    parts: tuple[Ints, ...]
    shared: int
    halves: tuple[tuple[int, int, int], ...]
    rest: Ints


def strips(blocks: Ints, weighed: Ints, sums: int, layout: Layout, kept: Collection[str], threads: int) -> Strips:
    """Cut the parameters of a layout for some threads.

    `blocks` are those of a `QuadraticPlan`, `weighed` those of `WholeRows`.
    """
    of_offset = {layout.offsets[n]: n for n, shape in layout.shapes.items() if math.prod(shape)}
    first: dict[str, np.ndarray] = {}
    blocks = blocks[blocks[:, 1:5].prod(axis=1) > 0]  # a parameter without entries lies where the next one does
    rest = [b for b in blocks if first.setdefault(of_offset[int(b[0])], b) is not b]
    kept = {*kept, *(of_offset[int(b[0])] for b in rest)}
    of_rows = {of_offset[int(b[0])]: b for b in weighed}
    table: list[tuple[int, ...]] = []
    halves: list[tuple[int, int, int]] = []
    shared, share = 0, max(1, layout.size // threads)

    def place(first: int, count: int, piece: int) -> int:
        nonlocal shared
        if not piece or first == NONE:
            return first
        halves.append((first, shared, count))
        shared += count
        return sums + shared - count

    for number, (name, shape) in enumerate(layout.shapes.items()):
        block = first.get(name, _rows_alone(of_rows.get(name), shape))
        _, width, coefficient, weighed_place, _ = of_rows.get(name, NOT_WEIGHED)
        for strip in _strips(block, number, layout.offsets[name], math.prod(shape), int(name in kept)):
            pieces = min(threads, strip[3], -(-strip[3] * strip[4] // share))
            for piece, rows in enumerate(np.array_split(np.arange(strip[3]), pieces)):
                columns = place(strip[7], strip[4] // strip[5], piece)
                behind = place(int(weighed_place), int(width), piece), int(coefficient) + int(rows[0])
                table.append((*_rows(strip, int(rows[0]), len(rows), columns), *behind))
    return Strips(_balanced(table, threads), shared, tuple(halves), np.array(rest, dtype=np.int64).reshape(-1, 7))


def _rows_alone(weighed: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """The block of a weight of which nothing but the sum of its rows is wanted."""
    return None if weighed is None else np.array([weighed[0], 1, shape[0], weighed[1], 1, NONE, NONE])


def _strips(block: np.ndarray | None, number: int, offset: int, size: int, kept: int) -> list[tuple[int, ...]]:
    """Strips of a parameter: one per group; pieces of rows where nothing is summed over them."""
    if block is None:
        return [
            (number, start, offset + start, 1, min(CHUNK, size - start), 1, NONE, NONE, kept)
            for start in range(0, size, CHUNK)
        ]
    _, groups, rows, inner, taps, row_place, column_place = (int(v) for v in block)
    out = []
    for group in range(groups):
        start = group * rows * inner * taps
        row_at = row_place if row_place == NONE else row_place + group * rows
        column_at = column_place if column_place == NONE else column_place + group * inner
        if rows > 1 or row_at != NONE:  # and whatever has its rows weighed
            out.append((number, start, offset + start, rows, inner * taps, taps, row_at, column_at, kept))
            continue
        for at in range(0, inner, CHUNK // taps or 1):  # a single row
            width = min(CHUNK // taps or 1, inner - at) * taps
            place = start + at * taps
            columns = column_at if column_at == NONE else column_at + at
            out.append((number, place, offset + place, 1, width, taps, NONE, columns, kept))
    return out


def _rows(strip: tuple[int, ...], first: int, count: int, column_place: int) -> tuple[int, ...]:
    number, start, offset, _, width, taps, row_place, _, kept = strip
    row_at = row_place if row_place == NONE else row_place + first
    return number, start + first * width, offset + first * width, count, width, taps, row_at, column_place, kept


def _balanced(table: list[tuple[int, ...]], threads: int) -> tuple[Ints, ...]:
    """Give the largest strip that is left to the thread that has least, and let each go through memory in order."""
    parts: list[list[tuple[int, ...]]] = [[] for _ in range(threads)]
    loads = [0] * threads
    for strip in sorted(table, key=lambda s: -s[3] * s[4]):
        least = loads.index(min(loads))
        parts[least].append(strip)
        loads[least] += strip[3] * strip[4]
    return tuple(np.array(sorted(p, key=lambda s: s[2]), dtype=np.int64).reshape(-1, len(FIELDS)) for p in parts)
