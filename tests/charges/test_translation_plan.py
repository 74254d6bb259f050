"""Sums of translation charges are what the generators say, whatever is merged, cut and gathered on the way."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from neuralmech.charges.gpu_tiles import translation_tiles
from neuralmech.charges.plan import NONE, plan_of, whole_rows
from neuralmech.charges.reference import written_out
from neuralmech.symmetry.family import Family, Term, generator_matrix
from neuralmech.symmetry.layout import Layout

NAMES = ("a", "b", "c")
SHAPE = st.one_of(
    st.tuples(st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 140)),
    st.tuples(st.sampled_from([2, 4, 6]), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
)


@st.composite
def families(draw):
    """Some families of a few terms each, on parameters that they share."""
    shapes = {name: draw(SHAPE) for name in NAMES[: draw(st.integers(1, 3))]}
    found = []
    for _ in range(draw(st.integers(1, 3))):
        components, width, terms = draw(st.integers(1, 9)), None, []
        for name in shapes if draw(st.booleans()) else [draw(st.sampled_from(list(shapes)))]:
            shape = shapes[name]
            axis = draw(st.sampled_from(["entries", "rows", "columns"] if len(shape) > 1 else ["entries"]))
            groups = draw(st.sampled_from([1, 2])) if axis == "columns" and len(shape) == 4 else 1
            length = {
                "entries": math.prod(shape),
                "rows": shape[0],
                "columns": groups * shape[-1 if len(shape) < 2 else 1],
            }
            under = math.prod(shape) // length[axis]
            own = draw(st.sampled_from([1, under]))
            if width not in (None, own):
                continue
            width = own
            seed = draw(st.integers(0, 999))
            terms.append((name, axis, coefficients(draw, components, length[axis], seed), groups))
        first = width * np.arange(components)
        terms = [Term(name, axis, part, first, width, groups) for name, axis, part, groups in terms]
        charges = components * width
        found.append(Family("translation", tuple(terms), ("",) * charges, np.arange(charges)))
    return shapes, found


def coefficients(draw, components, length, seed):
    """One element for each component, all for one of them, or anything."""
    kind = draw(st.sampled_from(["one each", "all", "any"]))
    if kind == "any":
        generator = np.random.default_rng(seed)
        return sparse.csr_array(generator.integers(-1, 2, (components, length)).astype(float))
    count = min(components, length) if kind == "one each" else length
    rows = np.arange(count) if kind == "one each" else np.full(count, seed % components)
    data = np.full(count, -2.0)
    return sparse.csr_array((data, (rows, seed % (length - count + 1) + np.arange(count))), shape=(components, length))


@settings(deadline=None, max_examples=200)
@given(drawn=families())
def test_charges_are_the_generators(drawn):
    shapes, found = drawn
    layout = Layout.by_shape(shapes)
    x = np.random.default_rng(0).standard_normal(layout.size)
    given_order = np.concatenate([layout.offsets[n] + np.arange(math.prod(s)) for n, s in shapes.items()])
    wanted = np.concatenate([generator_matrix(family, shapes) @ x[given_order] for family in found])
    plan = plan_of((), found, layout)
    np.testing.assert_allclose(written_out(plan.translation) @ x, wanted, rtol=1e-12, atol=1e-11)

    rows = whole_rows(plan, 0)
    by_rows = written_out(rows.rest) @ x
    for strip in rows.table:
        start, count, width, charge, first = (strip[n] for n in ("start", "rows", "columns", "charge", "coefficient"))
        block = x[start : start + count * width].reshape(-1, width)
        by_rows[charge : charge + width] += rows.coefficients[first : first + count] @ block
    np.testing.assert_allclose(by_rows, wanted, rtol=1e-12, atol=1e-11)

    translation = translation_tiles(rows, layout.size)
    sums = np.full(translation.tiles.sums, np.nan)
    fields = ["start", "rows", "columns", "stride", "row_place", "column_place", "coefficient"]
    for start, n, width, stride, row_place, column_place, first in translation.tiles.table[fields].tolist():
        tile = x[start + stride * np.arange(n)[:, None] + np.arange(width)]
        if row_place != NONE:
            sums[row_place : row_place + n] = tile.sum(axis=1)
        if column_place != NONE:
            sums[column_place : column_place + width] = translation.coefficients[first : first + n] @ tile
    by_tiles = translation.tiles.combine @ sums + written_out(translation.rest) @ x
    np.testing.assert_allclose(by_tiles, wanted, rtol=1e-12, atol=1e-11)
