"""Sums over tiles are the plan's sums; the kernel that makes them is interpreted on the CPU, and compiled for a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from nets_tracked import NETS
from neuralmech.charges import gpu_tiles
from neuralmech.charges.gpu import Gpu, sums_tiles
from neuralmech.charges.plan import NONE, Plan, QuadraticPlan, plan_of, rectangles, together, translation_plan
from neuralmech.charges.reference import Reference
from neuralmech.charges.step import MAIN, Step
from neuralmech.discovery.discover import find_symmetries
from neuralmech.symmetry.layout import Layout

CPU = torch.device("cpu")
BLOCK = st.tuples(
    st.integers(1, 3), st.integers(1, 200), st.integers(1, 150), st.sampled_from([1, 9]),
    st.sampled_from(["rows", "columns", "both"]), st.integers(0, 3),
)  # fmt: skip


def quadratic_plan_of(shapes):
    """A plan whose charges are combinations of neighbouring sums, and the size of the vector."""
    table, size, offset = [], 0, 0
    for groups, rows, inner, taps, kind, gap in shapes:
        places, group = {}, np.arange(groups)
        for axis, length in (("row", rows), ("column", inner)):
            if kind in (axis + "s", "both"):
                places[axis + "_place"] = size + group * length
                size += groups * length
        each = rows * inner * taps
        table.append(
            rectangles(start=offset + gap + group * each, rows=rows, columns=inner * taps, taps=taps, **places)
        )
        offset += gap + groups * each
    combine = sparse.diags_array([np.ones(size), -np.ones(size - 1)], offsets=[0, 1], format="csr")
    return QuadraticPlan(together(table), size, sparse.csr_array(combine)), offset


def step_of(size, dtype, device):
    vectors = torch.randn(4, size, dtype=dtype, generator=torch.Generator().manual_seed(0)).to(device)
    return Step(*vectors[:3], rate=10.0, buffer=vectors[3])


@settings(deadline=None, max_examples=60)
@given(shapes=st.lists(BLOCK, min_size=1, max_size=3), many=st.booleans())
def test_the_sums_of_tiles_make_up_the_plans(shapes, many):
    plan, size = quadratic_plan_of(shapes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_tiles, "MANY", 0 if many else 1 << 26)
        cut = gpu_tiles.tiles(plan, size)
    x = np.random.default_rng(0).standard_normal(size)
    sums, written = np.zeros(cut.sums), np.zeros(cut.sums, dtype=int)
    fields = ["start", "rows", "columns", "stride", "row_place", "column_place"]
    for start, rows, columns, width, row_place, column_place in cut.table[fields].tolist():
        assert 0 < columns <= gpu_tiles.COLUMNS
        tile = x[start + width * np.arange(rows)[:, None] + np.arange(columns)]
        for place, values in ((row_place, tile.sum(axis=1)), (column_place, tile.sum(axis=0))):
            if place != NONE:
                sums[place : place + len(values)] = values
                written[place : place + len(values)] += 1
    assert (written == 1).all()
    wanted = np.zeros(plan.sums)
    for start, rows, columns, taps, row_place, column_place in plan.table[
        ["start", "rows", "columns", "taps", "row_place", "column_place"]
    ].tolist():
        block = x[start : start + rows * columns].reshape(rows, columns // taps, taps)
        if row_place != NONE:
            wanted[row_place : row_place + rows] = block.sum(axis=(1, 2))
        if column_place != NONE:
            wanted[column_place : column_place + columns // taps] = block.sum(axis=(0, 2))
    np.testing.assert_allclose(cut.combine @ sums, plan.combine @ wanted, rtol=1e-12, atol=1e-11)


SHAPES = {
    "one of all": [(1, 70, 33, 9, "both", 1), (2, 5, 140, 1, "rows", 0), (3, 1, 4, 9, "columns", 2)],
    "entries": [(1, 1, 150, 1, "columns", 0), (1, 150, 1, 1, "rows", 3)],
}


def assert_tiles_are_runs(device):
    """Both ways, with η as a number and as what a CUDA graph reads."""
    for shapes in SHAPES.values():
        quadratic, size = quadratic_plan_of(shapes)
        layout = Layout.by_shape({"all": (size,)})
        plan = Plan(quadratic, translation_plan((), layout), layout)
        for dtype in (torch.float32, torch.float64):
            vectors = step_of(size, dtype, device)[:3]
            for rate in (10.0, torch.tensor(10.0, dtype=torch.float64, device=device)):
                found, wanted = torch.zeros(2, len(MAIN), plan.charges, dtype=torch.float64, device=device)
                Gpu(plan, MAIN, device).evaluate(Step(*vectors, rate=rate), found)
                Reference(plan, MAIN, device).evaluate(Step(*vectors, rate=rate), wanted)
                torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-11)
                assert wanted.abs().min(dim=1).values.max() > 0


def assert_charges_are_the_same(device):
    """Every signal of every charge of some nets, their translations among them."""
    for build, batch in NETS.values():
        model = build().train()
        found = find_symmetries(model, batch())
        layout = Layout.by_shape({n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad})
        kinds = ([f for f in found.families.values() if f.kind == kind] for kind in ("diagonal", "translation"))
        plan = plan_of(*kinds, layout)
        step = step_of(layout.size, torch.float32, device)
        for signals in (MAIN, (*MAIN, "drive_buffer")):
            outs = []
            for make in (Gpu, Reference):
                out = torch.full((len(signals), plan.charges), torch.nan, dtype=torch.float64, device=device)
                make(plan, signals, device).evaluate(step, out)
                outs.append(out)
            torch.testing.assert_close(*outs, rtol=1e-12, atol=1e-11)


INTERPRETED = """
import sys
sys.path[:0] = sys.argv[1:]
from charges.test_tiles import CPU, assert_charges_are_the_same, assert_tiles_are_runs, sums_tiles
assert_tiles_are_runs(CPU)
assert_charges_are_the_same(CPU)
assert sums_tiles(CPU)
print("the same")
"""


def test_the_kernel_gives_the_sums_when_it_is_interpreted():
    pytest.importorskip("triton")
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED, tests, tests / "support"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "the same\n", done.stderr


@pytest.mark.parametrize("number", ["fp32", "fp64"])
@pytest.mark.parametrize("name", ["_sums", "_weighed"])
def test_the_kernels_compile_for_a_gpu(name, number):
    compiler = pytest.importorskip("triton.compiler")
    from triton.backends.compiler import GPUTarget

    from neuralmech.charges import gpu_kernels

    kernel = getattr(gpu_kernels, name)
    types = {"table": "*i64", "sums": "*fp64", "coefficients": "*fp64", "apart": "i32"}
    types |= dict.fromkeys(("before", "after", "gradient"), f"*{number}")
    signature = {argument: types[argument] for argument in kernel.arg_names}
    source = compiler.ASTSource(fn=kernel, signature=signature, constexprs={})
    made = compiler.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
    assert made.asm["cubin"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_kernel_gives_the_sums_on_a_gpu():
    device = torch.device("cuda")
    assert sums_tiles(device)
    assert_tiles_are_runs(device)
    assert_charges_are_the_same(device)


def test_where_the_kernel_does_not_work_there_is_another_way(monkeypatch):
    """Whatever goes wrong: it runs on no CPU, and it might compute something else."""
    kernel = pytest.importorskip("neuralmech.charges.gpu_kernels")
    sums_tiles.cache_clear()
    with pytest.warns(UserWarning, match=r"charges are summed by many kernels, because Triton's do not work here: ."):
        assert not sums_tiles(CPU)
    sums_tiles.cache_clear()
    for name in ("sum_tiles", "add_rows"):
        monkeypatch.setattr(kernel, name, lambda *_: None)
    with pytest.warns(UserWarning, match="they compute something else"):
        assert not sums_tiles(CPU)
    sums_tiles.cache_clear()
