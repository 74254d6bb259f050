"""The pass that updates and sums at once, against PyTorch's optimiser and sums in numpy."""

import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from neuralmech.charges import one_pass_kernels as kernels
from neuralmech.charges.one_pass import OnePass, moves_like_torch
from neuralmech.charges.plan import NONE
from neuralmech.charges.step import Motion
from neuralmech.charges.translation_plan import TranslationPlan, whole_rows
from neuralmech.symmetry.layout import Layout

KINDS = st.sampled_from(["rows", "columns", "both", "entries", "none", "twice"])
SHAPES = st.one_of(
    st.tuples(st.integers(1, 40)),
    st.tuples(st.integers(1, 12), st.integers(1, 40)),
    st.tuples(st.sampled_from([2, 4, 6]), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
    st.just((9000,)),
)


def planned(shapes, kinds, groups):
    """Blocks as a plan has them, and for each what its row and column sums are of."""
    layout = Layout.by_shape({f"p{i}": shape for i, shape in enumerate(shapes)})
    blocks, truths, size = [], [], 0
    for (name, shape), kind in zip(layout.shapes.items(), kinds, strict=True):
        offset, entries = layout.offsets[name], math.prod(shape)
        at = slice(offset, offset + entries)
        if kind in ("entries", "twice"):
            blocks.append((offset, 1, 1, entries, 1, NONE, size))
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
            row_place = size
            truths.append((size, lambda p, at=at, v=view: p[at].reshape(v).sum(axis=(2, 3)).ravel()))
            size += shape[0]
        if kind != "rows":
            column_place = size
            truths.append((size, lambda p, at=at, v=view: p[at].reshape(v).sum(axis=(1, 3)).ravel()))
            size += n * inner
        blocks.append((offset, *view, row_place, column_place))
    return layout, np.array(blocks, dtype=np.int64).reshape(-1, 7), size, truths


def weighed_rows(layout, blocks, size, which):
    """One translation charge per column of some parameters, with a coefficient for each row but the first."""
    pieces, coefficients, charges = [], [], 0
    for name in which:
        rows, width = layout.shapes[name][0], math.prod(layout.shapes[name][1:])
        pieces += [(layout.offsets[name] + row * width, 1, 0, width, charges, 0, 1) for row in range(1, rows)]
        coefficients += [row - 2.5 for row in range(1, rows)]
        charges += width
    table = np.array(pieces, dtype=np.int64).reshape(-1, 7)
    plan = TranslationPlan(table, np.array(coefficients), sparse.csr_array((charges, layout.size)))
    return whole_rows(plan, blocks, size, layout)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shapes=st.lists(SHAPES, min_size=1, max_size=6), threads=st.integers(1, 3))
def test_sums_are_those_of_the_step(data, shapes, threads):
    kinds = [data.draw(KINDS) for _ in shapes]
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    momentum = data.draw(st.sampled_from([0.0, 0.9]))
    layout, blocks, size, truths = planned(shapes, kinds, groups=2)
    generator = torch.Generator().manual_seed(0)
    theta, flat, buffer = (torch.randn(layout.size, dtype=dtype, generator=generator) for _ in range(3))
    gradients = parts_of(flat, layout)
    rows = weighed_rows(layout, blocks, size, [name for name in layout.shapes if data.draw(st.booleans())])
    before, sums = theta.clone(), np.zeros((4, size + rows.sums))
    take = OnePass(blocks, rows, sums, layout, ("p0",), theta, threads)
    take.move(Motion(gradients, buffer if momentum else None, 0.1, momentum, 0.01), measured=True)

    t, g, u = before.double().numpy(), flat.double().numpy(), before.double().numpy() - theta.double().numpy()
    rest = {int(place) for block in take.rest for place in block[5:]}
    for k, product in enumerate((t * t, u * u, g * g, t * g)):
        for place, truth in truths:
            if place not in rest:
                wanted = truth(product)
                np.testing.assert_allclose(sums[k, place : place + len(wanted)], wanted, rtol=1e-12, atol=1e-13)
    for offset, width, first, place, _ in rows.blocks:
        count = next(s[0] for n, s in layout.shapes.items() if layout.offsets[n] == offset)
        c = rows.coefficients[first : first + count]
        for k, x in enumerate((t, u, g)):
            wanted = c @ x[offset : offset + count * width].reshape(count, width)
            np.testing.assert_allclose(sums[k, place : place + width], wanted, rtol=1e-12, atol=1e-12)
    at = slice(layout.offsets["p0"], layout.offsets["p0"] + math.prod(layout.shapes["p0"]))
    assert torch.equal(take.before[at], before[at])
    assert torch.equal(take.gradient[at], flat[at])


def parts_of(flat, layout):
    places = zip(layout.offsets.values(), layout.shapes.values(), strict=True)
    return [flat[offset : offset + math.prod(shape)].view(shape) for offset, shape in places]


@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("measured", [False, True])
def test_the_update_is_pytorchs_to_the_last_bit(dtype, momentum, weight_decay, measured):
    assert moves_like_torch(dtype, momentum > 0)  # else this machine uses PyTorch's own
    layout, blocks, size, _ = planned([(37, 53), (61,), (1858,), (8, 3, 3, 3)], ["both", "rows", "none", "columns"], 1)
    assert layout.size == 4096  # whole vector registers, see `moves_like_torch`
    torch.manual_seed(0)
    theirs = torch.nn.Parameter(torch.randn(layout.size, dtype=dtype))
    ours, buffer = theirs.detach().clone(), torch.zeros(layout.size, dtype=dtype)
    take = OnePass(blocks, weighed_rows(layout, blocks, size, ()), np.zeros((4, size)), layout, (), ours, 2)
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, weight_decay=weight_decay, fused=True)
    for lr in (0.1, 0.033, 1e-3, 0.0):
        theirs.grad = torch.randn(layout.size, dtype=dtype)
        parts = parts_of(theirs.grad, layout)
        parts = [p.t().contiguous().t() if p.dim() == 2 else p for p in parts]
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        take.move(Motion(parts, buffer if momentum else None, lr, momentum, weight_decay), measured=measured)
        assert torch.equal(ours, theirs.detach())
        if momentum:
            assert torch.equal(buffer, optimizer.state[theirs]["momentum_buffer"])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
@pytest.mark.parametrize("measured", [False, True])
def test_what_is_infinite_stays_pytorchs(momentum, weight_decay, measured):
    """A run that diverged may go on; 0 · ∞ is not to be seen where nothing decays."""
    layout, blocks, size, _ = planned([(32, 64), (2048,)], ["both", "entries"], 1)
    theirs = torch.nn.Parameter(torch.linspace(-1, 1, layout.size))
    ours, buffer = theirs.detach().clone(), torch.zeros(layout.size)
    take = OnePass(blocks, weighed_rows(layout, blocks, size, ()), np.zeros((4, size)), layout, (), ours)
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, weight_decay=weight_decay, fused=True)
    for step in range(4):
        theirs.grad = torch.ones(layout.size) * (step != 2)
        if step == 1:
            theirs.grad[::7], theirs.grad[1::7], theirs.grad[2::7] = torch.inf, -torch.inf, torch.nan
        optimizer.step()
        gradients = parts_of(theirs.grad, layout)
        take.move(Motion(gradients, buffer if momentum else None, 0.1, momentum, weight_decay), measured=measured)
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0, equal_nan=True)


def test_threads_share_a_weight_that_is_most_of_the_model():
    layout, blocks, size, _ = planned([(100, 50), (10, 10)], ["both", "both"], groups=1)
    take = OnePass(
        blocks, weighed_rows(layout, blocks, size, ()), np.zeros((4, size)), layout, (), torch.zeros(layout.size), 3
    )
    loads = [int((part[:, 3] * part[:, 4]).sum()) for part in take._strips.parts]
    assert sum(loads) == layout.size
    assert max(loads) <= 0.4 * layout.size


def test_threads_run_at_the_same_time():
    """Python goes on while a thread is in the pass; compiled code from the disk must not hold the interpreter."""
    layout, blocks, size, _ = planned([(4096, 4096)], ["both"], groups=1)
    theta = torch.zeros(layout.size)
    take = OnePass(blocks, weighed_rows(layout, blocks, size, ()), np.zeros((4, size)), layout, (), theta, 2)
    gradients = [torch.zeros(4096, 4096)]
    take.move(Motion(gradients, None, 0.1, 0.0, 0.0), measured=True)  # compiles
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1

    other = threading.Thread(target=count)
    other.start()
    inside = []
    real = kernels.take_beside

    def watched(*arguments):
        before = counted[0]
        real(*arguments)
        inside.append(counted[0] - before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralmech.charges.one_pass.take_beside", watched)
        for _ in range(5):
            take.move(Motion(gradients, None, 0.1, 0.0, 0.0), measured=True)
    stop.set()
    other.join()
    assert len(inside) == 10
    assert max(inside) > 100
