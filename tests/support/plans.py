"""Plans over made-up parameters, and what their sums are of."""

import math

import numpy as np
from hypothesis import strategies as st

from neuralmech.charges.plan import NONE, rectangles, together
from neuralmech.symmetry.layout import Layout

KINDS = st.sampled_from(["rows", "columns", "both", "entries", "none", "twice"])
SHAPES = st.one_of(
    st.tuples(st.integers(1, 40)),
    st.tuples(st.integers(1, 12), st.integers(1, 40)),
    st.tuples(st.sampled_from([2, 4, 6]), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
    st.just((9000,)),
)


def planned(shapes, kinds, groups):
    """Rectangles as a plan has them, and for each what its row and column sums are of."""
    layout = Layout.by_shape({f"p{i}": shape for i, shape in enumerate(shapes)})
    table, truths, size = [], [], 0
    for number, ((name, shape), kind) in enumerate(zip(layout.shapes.items(), kinds, strict=True)):
        offset, entries = layout.offsets[name], math.prod(shape)
        at = slice(offset, offset + entries)
        if kind in ("entries", "twice"):
            table.append(rectangles(start=offset, columns=entries, column_place=size, parameter=number))
            truths.append((size, lambda p, at=at: p[at]))
            size += entries
        if kind in ("none", "entries"):
            continue
        n = groups if len(shape) == 4 and shape[0] % groups == 0 and kind != "rows" else 1
        inner, taps = (
            (math.prod(shape[1:]), 1) if kind == "rows" or len(shape) < 2 else (shape[1], math.prod(shape[2:]))
        )
        view = (n, shape[0] // n, inner, taps)
        row_place = column_place = NONE
        if kind != "columns":
            row_place = size + np.arange(n) * view[1]
            truths.append((size, lambda p, at=at, v=view: p[at].reshape(v).sum(axis=(2, 3)).ravel()))
            size += shape[0]
        if kind != "rows":
            column_place = size + np.arange(n) * inner
            truths.append((size, lambda p, at=at, v=view: p[at].reshape(v).sum(axis=(1, 3)).ravel()))
            size += n * inner
        shape_of = {"rows": view[1], "columns": inner * taps, "taps": taps, "parameter": number}
        places = {"row_place": row_place, "column_place": column_place}
        table.append(rectangles(start=offset + np.arange(n) * (entries // n), **shape_of, **places))
    return layout, together(table), size, truths


def parts_of(flat, layout):
    places = zip(layout.offsets.values(), layout.shapes.values(), strict=True)
    return [flat[offset : offset + math.prod(shape)].view(shape) for offset, shape in places]
