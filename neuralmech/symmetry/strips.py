"""How a pass over all parameters is cut into strips: rows of a weight that one thread takes, one after the other."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.plan import NONE, Ints

FIELDS = ("parameter", "start", "offset", "rows", "width", "taps", "row_place", "column_place", "kept")
CHUNK = 1 << 13  # entries of a row, where nothing is summed over rows


@dataclass(frozen=True)
class Strips:
    """All parameters, each exactly once.

    Attributes
    ----------
    parts
        One table per thread, of about the same number of entries each. A row is a strip, with the columns `FIELDS`:
        number of the parameter, first entry within it and in the flat vector, rows, entries of a row, kernel taps,
        where its row sums and column sums go (`NONE`: nowhere; behind the plan's sums: to the shared ones), and whether
        θ_k and g are kept.
    shared
        Number of shared sums.
    halves
        Column sums of weights that several strips share: where the first's are, where among the shared sums another's
        are, how many.
    rest
        Blocks of the plan on parameters that have one already.
    """

    parts: tuple[Ints, ...]
    shared: int
    halves: tuple[tuple[int, int, int], ...]
    rest: Ints


def strips(blocks: Ints, sums: int, layout: Layout, kept: Collection[str], threads: int) -> Strips:
    """Cut the parameters of a layout for some threads; `blocks` are those of a `QuadraticPlan`."""
    of_offset = {layout.offsets[n]: n for n, shape in layout.shapes.items() if math.prod(shape)}
    first: dict[str, np.ndarray] = {}
    blocks = blocks[blocks[:, 1:5].prod(axis=1) > 0]  # a parameter without entries lies where the next one does
    rest = [b for b in blocks if first.setdefault(of_offset[int(b[0])], b) is not b]
    kept = {*kept, *(of_offset[int(b[0])] for b in rest)}
    table: list[tuple[int, ...]] = []
    halves: list[tuple[int, int, int]] = []
    shared, share = 0, max(1, layout.size // threads)
    for number, (name, shape) in enumerate(layout.shapes.items()):
        for strip in _strips(first.get(name), number, layout.offsets[name], math.prod(shape), int(name in kept)):
            pieces = min(threads, strip[3], -(-strip[3] * strip[4] // share))
            for piece, rows in enumerate(np.array_split(np.arange(strip[3]), pieces)):
                columns = strip[7]
                if piece and columns != NONE:
                    count = strip[4] // strip[5]
                    halves.append((columns, shared, count))
                    columns, shared = sums + shared, shared + count
                table.append(_rows(strip, int(rows[0]), len(rows), columns))
    return Strips(_balanced(table, threads), shared, tuple(halves), np.array(rest, dtype=np.int64).reshape(-1, 7))


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
        if rows > 1 or row_at != NONE:
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
