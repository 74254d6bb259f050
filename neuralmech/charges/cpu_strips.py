"""How a pass over all parameters is cut into strips: rows of a weight that one thread takes, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64, Shaped
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from neuralmech.charges.plan import NONE, Rectangles, rectangles, together
from neuralmech.symmetry.layout import Layout

CHUNK = 1 << 13  # entries of a row, where nothing is summed over rows
SERIAL = 1 << 20  # parameters below which a second thread costs more than it saves

R = TypeVar("R")


def threads_for(layout: Layout) -> int:
    """How many threads share a pass over all parameters: those that PyTorch has, if there is enough to do."""
    return torch.get_num_threads() if layout.size >= SERIAL else 1


def beside(threads: int) -> Executor | None:
    """Those of so many threads that are not the caller's, for `in_threads`."""
    return ThreadPoolExecutor(threads - 1) if threads > 1 else None


def in_threads(pool: Executor | None, function: Callable[..., R], calls: Sequence[tuple]) -> list[R]:
    """Make calls side by side, the first of them here; all have ended when this returns what they gave, or raises."""
    others = [pool.submit(function, *call) for call in calls[1:]] if pool else []
    try:
        first = function(*calls[0])
    finally:
        wait(others)  # whatever happens here: they read memory at addresses
    return [first, *(other.result() for other in others)]


def compressed(
    matrix: sparse.csr_array,
) -> tuple[Int[NDArray, " pointers"], Int[NDArray, " entries"], Float64[NDArray, " entries"]]:
    """Row pointers, columns and data."""
    return matrix.indptr, matrix.indices, matrix.data


def parameters_of(entries: Int64[NDArray, " entries"], layout: Layout) -> set[str]:
    """Names of the parameters that entries of the flat vector are of."""
    names, offsets = list(layout.offsets), np.array(list(layout.offsets.values()))
    return {names[i] for i in np.searchsorted(offsets, entries, side="right") - 1}


def apart(pieces: Shaped[NDArray, " pieces"], parts: int) -> list[Shaped[NDArray, " pieces"]]:
    """Pieces of translation charges in at most so many parts of about the same size, which have no charge in common."""
    if not len(pieces):
        return []
    ordered = pieces[np.argsort(pieces["charge"], kind="stable")]
    spans = [(ordered[f"{side}s"] - 1) * ordered[f"{side}_step"] for side in ("row", "column")]
    ends = np.maximum.accumulate(ordered["charge"] + sum(spans))
    free = 1 + np.flatnonzero(ordered["charge"][1:] > ends[:-1])  # a part may begin there
    done = np.cumsum(ordered["rows"] * ordered["columns"])
    wanted = done[-1] * np.arange(1, parts) / parts
    nearest = {int(free[np.abs(done[free - 1] - w).argmin()]) for w in wanted} if len(free) else set()
    return np.split(ordered, sorted(nearest))


class Addresses:
    """Where tensors of parameters are, for compiled code: gradients, say.

    Parameters
    ----------
    layout, theta
        Of the flat parameters.
    """

    def __init__(self, layout: Layout, theta: Float[Tensor, " parameters"]) -> None:
        self._behind = np.array(list(layout.offsets.values())) * theta.element_size()

    def of(
        self, *kinds: Sequence[Float[Tensor, "*shape"]]
    ) -> tuple[Int64[NDArray, "kinds tensors"], list[Float[Tensor, "*shape"]]]:
        """Each as if its tensor began where the flat vector does, and what must be kept as long as they are read."""
        dense = [x if x.is_contiguous() else x.contiguous() for of_kind in kinds for x in of_kind]
        return np.array([x.data_ptr() for x in dense], dtype=np.int64).reshape(len(kinds), -1) - self._behind, dense


@dataclass(frozen=True)
class Strips:
    """All parameters, each entry exactly once.

    Attributes
    ----------
    parts
        One table per thread, of about the same number of entries each. Places of column sums behind the plan's sums
        are of shared ones.
    shared
        Number of shared sums.
    halves
        Sums over rows that several strips share: where the first's are, where among the shared sums another's are, how
        many.
    rest
        Rectangles of the plan on parameters that have one already.
    """

    parts: tuple[Rectangles, ...]
    shared: int
    halves: tuple[tuple[int, int, int], ...]
    rest: Rectangles

    def join(self, sums: Float64[NDArray, "signals sums"], shared: Float64[NDArray, "signals shared"]) -> None:
        """Add the shared sums to those that they are halves of."""
        for first, other, count in self.halves:
            sums[:, first : first + count] += shared[:, other : other + count]


def strips(
    table: Rectangles, weighed: Rectangles, sums: int, layout: Layout, kept: Collection[str], threads: int
) -> Strips:
    """Cut the parameters of a layout for some threads.

    `table` is that of a `QuadraticPlan`, `weighed` that of `WholeRows`; `sums` is the number of both's sums.
    """
    cut: list[Rectangles] = []
    rest: list[Rectangles] = []
    for number, (name, shape) in enumerate(layout.shapes.items()):
        size = math.prod(shape)
        mine, rows = table[table["parameter"] == number], weighed[weighed["parameter"] == number]
        is_first = np.cumsum(mine["rows"] * mine["columns"]) <= size  # what follows covers it a second time
        first, again = mine[is_first].copy(), mine[~is_first]
        if not len(first):  # nothing is summed, or the rows alone are
            first = rows.copy() if len(rows) else rectangles(start=layout.offsets[name], columns=size)
        elif len(rows):
            first["weighed_place"], first["coefficient"] = rows["weighed_place"], rows["coefficient"]
        first["parameter"], first["kept"] = number, name in kept or len(again) > 0
        cut += [piece for strip in first for piece in _chunks(strip)] if size else []
        rest.append(again)
    halved = _Halves(sums)
    share = max(1, layout.size // threads)
    parts = [half for strip in cut for half in halved.split(strip, threads, share)]
    return Strips(_balanced(together(parts), threads), halved.shared, tuple(halved.found), together(rest))


def _chunks(strip: np.void) -> list[Rectangles]:
    """Pieces of a single row over which nothing is summed, so that threads can share it, else the strip as it is.

    They end between two kernels, whose taps are one sum.
    """
    whole, taps = np.array([strip]), int(strip["taps"])
    if strip["rows"] > 1 or strip["row_place"] != NONE or strip["weighed_place"] != NONE:
        return [whole]
    step = (CHUNK // taps or 1) * taps
    at = np.arange(0, strip["columns"], step)
    out = np.repeat(whole, len(at))
    out["start"] += at
    out["columns"] = np.minimum(step, strip["columns"] - at)
    out["column_place"] = NONE if strip["column_place"] == NONE else strip["column_place"] + at // taps
    return [out]


class _Halves:
    """Splits strips that are more than a thread's share, and counts the sums over rows that their parts share."""

    def __init__(self, sums: int) -> None:
        self._sums = sums
        self.shared = 0
        self.found: list[tuple[int, int, int]] = []

    def split(self, strips: Rectangles, threads: int, share: int) -> list[Rectangles]:
        """Parts of about as many rows each."""
        rows, width = int(strips["rows"][0]), int(strips["columns"][0])
        pieces = min(threads, rows, -(-rows * width // share))
        if pieces <= 1:
            return [strips]
        out = np.repeat(strips, pieces)
        for part, mine in zip(out, np.array_split(np.arange(rows), pieces), strict=True):
            first = int(mine[0])
            part["rows"] = len(mine)
            part["start"] += first * width
            part["coefficient"] += first
            if part["row_place"] != NONE:
                part["row_place"] += first
        for part in out[1:]:  # the first writes where the sum is wanted, the others behind, to be added to it
            part["column_place"] = self._place(int(part["column_place"]), width // int(part["taps"]))
            part["weighed_place"] = self._place(int(part["weighed_place"]), width)
        return [out]

    def _place(self, first: int, count: int) -> int:
        if first == NONE:
            return NONE
        self.found.append((first, self.shared, count))
        self.shared += count
        return self._sums + self.shared - count


def _balanced(table: Rectangles, threads: int) -> tuple[Rectangles, ...]:
    """Give the largest strip that is left to the thread that has least, and let each go through memory in order."""
    sizes = table["rows"] * table["columns"]
    owner, loads = np.zeros(len(table), dtype=np.int64), np.zeros(threads, dtype=np.int64)
    for k in np.argsort(-sizes, kind="stable"):
        owner[k] = least = int(loads.argmin())
        loads[least] += sizes[k]
    parts = (table[owner == thread] for thread in range(threads))
    return tuple(np.ascontiguousarray(part[np.argsort(part["start"], kind="stable")]) for part in parts)
