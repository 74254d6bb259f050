"""The pass that updates and sums at once, against PyTorch's optimiser and sums in numpy."""

import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from neuralmech.charges import cpu_kernels as kernels
from neuralmech.charges.cpu import moves_like_torch
from neuralmech.charges.cpu_pass import OnePass
from neuralmech.charges.cpu_strips import CHUNK
from neuralmech.charges.plan import (
    Plan,
    QuadraticPlan,
    TranslationPlan,
    rectangles,
    together,
    whole_rows,
)
from neuralmech.charges.step import Motion, Taken
from plans import KINDS, SHAPES, parts_of, planned


def one_pass(layout, table, size, theta, which=(), kept=(), threads=None):
    """A pass that sums what the table says, and rows of some parameters; returns these, too.

    Of each of them there is one translation charge per column, with a coefficient for each row but the first.
    """
    pieces, charges = [], 0
    for number, (name, shape) in enumerate(layout.shapes.items()):
        rows, width = shape[0], math.prod(shape[1:])
        if name in which and rows > 1:
            row = np.arange(1, rows)
            whole = {"columns": width, "charge": charges, "column_step": 1, "parameter": number}
            pieces.append(rectangles(start=layout.offsets[name] + row * width, **whole, weight=row - 2.5))
            charges += width
    translation = TranslationPlan(together(pieces), sparse.csr_array((charges, layout.size)))
    plan = Plan(QuadraticPlan(table, size, sparse.csr_array((0, size))), translation, layout)
    rows = whole_rows(plan, size)
    return OnePass(plan, rows, theta, kept, threads), rows


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shapes=st.lists(SHAPES, min_size=1, max_size=6), threads=st.integers(1, 3))
def test_sums_are_those_of_the_step(data, shapes, threads):
    kinds = [data.draw(KINDS) for _ in shapes]
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    momentum = data.draw(st.sampled_from([0.0, 0.9]))
    layout, table, size, truths = planned(shapes, kinds, groups=2)
    generator = torch.Generator().manual_seed(0)
    theta, flat, buffer = (torch.randn(layout.size, dtype=dtype, generator=generator) for _ in range(3))
    gradients = parts_of(flat, layout)
    which, before = [name for name in layout.shapes if data.draw(st.booleans())], theta.clone()
    take, rows = one_pass(layout, table, size, theta, which, ("p0",), threads)
    take.move(Motion(gradients, buffer if momentum else None, 0.1, momentum, 0.01), measured=True)

    t, g, u = before.double().numpy(), flat.double().numpy(), before.double().numpy() - theta.double().numpy()
    sums, rest = take.into.sums, {*take.rest["row_place"].tolist(), *take.rest["column_place"].tolist()}
    for k, product in enumerate((t * t, u * u, g * g, t * g)):
        for place, truth in truths:
            if place not in rest:
                wanted = truth(product)
                np.testing.assert_allclose(sums[k, place : place + len(wanted)], wanted, rtol=1e-12, atol=1e-13)
    for strip in rows.table:
        offset, count, width, place = (strip[n] for n in ("start", "rows", "columns", "weighed_place"))
        c = rows.coefficients[strip["coefficient"] : strip["coefficient"] + count]
        for k, x in enumerate((t, u, g)):
            wanted = c @ x[offset : offset + count * width].reshape(count, width)
            np.testing.assert_allclose(sums[k, place : place + width], wanted, rtol=1e-12, atol=1e-12)
    at = slice(layout.offsets["p0"], layout.offsets["p0"] + math.prod(layout.shapes["p0"]))
    assert torch.equal(take.before[at], before[at])
    assert torch.equal(take.gradient[at], flat[at])


@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("measured", [False, True])
def test_the_update_is_pytorchs_to_the_last_bit(dtype, momentum, weight_decay, measured):
    assert moves_like_torch(dtype)  # else this machine uses PyTorch's own
    layout, table, size, _ = planned([(37, 53), (61,), (1858,), (8, 3, 3, 3)], ["both", "rows", "none", "columns"], 1)
    assert layout.size == 4096  # whole vector registers, see `moves_like_torch`
    torch.manual_seed(0)
    theirs = torch.nn.Parameter(torch.randn(layout.size, dtype=dtype))
    ours, buffer = theirs.detach().clone(), torch.zeros(layout.size, dtype=dtype)
    take = one_pass(layout, table, size, ours, threads=2)[0]
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
    layout, table, size, _ = planned([(32, 64), (2048,)], ["both", "entries"], 1)
    theirs = torch.nn.Parameter(torch.linspace(-1, 1, layout.size))
    ours, buffer = theirs.detach().clone(), torch.zeros(layout.size)
    take = one_pass(layout, table, size, ours)[0]
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
    layout, table, size, _ = planned([(100, 50), (10, 10)], ["both", "both"], groups=1)
    take = one_pass(layout, table, size, torch.zeros(layout.size), threads=3)[0]
    loads = [int((part["rows"] * part["columns"]).sum()) for part, *_ in take._parts]
    assert sum(loads) == layout.size
    assert max(loads) <= 0.4 * layout.size


def test_threads_run_at_the_same_time():
    """Python goes on while a thread is in the pass; compiled code from the disk must not hold the interpreter."""
    layout, table, size, _ = planned([(4096, 4096)], ["both"], groups=1)
    theta = torch.zeros(layout.size)
    take, _ = one_pass(layout, table, size, theta, threads=2)
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
        patch.setattr("neuralmech.charges.cpu_pass.take_beside", watched)
        for _ in range(5):
            take.move(Motion(gradients, None, 0.1, 0.0, 0.0), measured=True)
    stop.set()
    other.join()
    assert len(inside) == 10
    assert max(inside) > 100


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shapes=st.lists(SHAPES, min_size=1, max_size=6), threads=st.integers(1, 3))
def test_a_step_that_was_taken_has_the_sums_of_one_that_is(data, shapes, threads):
    """Out of tensors elsewhere, some not contiguous; θ becomes θ_{k+1}."""
    kinds = [data.draw(KINDS) for _ in shapes]
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    layout, table, size, _ = planned(shapes, kinds, groups=2)
    theta, flat = torch.randn(2, layout.size, dtype=dtype, generator=torch.Generator().manual_seed(0)).unbind()
    which = [name for name in layout.shapes if data.draw(st.booleans())]
    moved, followed = theta.clone(), theta.clone()
    take, _ = one_pass(layout, table, size, moved, which, ("p0",), threads)
    take.move(Motion(parts_of(flat, layout), None, 0.1, 0.0, 0.01), measured=True)
    follow, _ = one_pass(layout, table, size, followed, which, ("p0",), threads)
    elsewhere = [[p.clone() for p in parts_of(of, layout)] for of in (moved, flat)]
    turned = [[p.t().contiguous().t() if p.dim() == 2 else p for p in of] for of in elsewhere]
    follow.follow(Taken(*turned, lr=0.1))

    assert torch.equal(followed, moved)
    np.testing.assert_allclose(follow.into.sums, take.into.sums, rtol=1e-12, atol=1e-13)
    at = slice(layout.offsets["p0"], layout.offsets["p0"] + math.prod(layout.shapes["p0"]))
    assert torch.equal(follow.before[at], theta[at])
    assert torch.equal(follow.gradient[at], flat[at])


@pytest.mark.parametrize("size", [1, CHUNK + 1])
def test_what_is_kept_and_not_summed_leaves_the_sums_alone(size):
    """Its last strip has one entry and no place for a sum, which numba would take for the last of all."""
    layout, table, count, truths = planned([(1,), (size,)], ["rows", "none"], groups=1)
    theta, flat = torch.randn(2, layout.size, generator=torch.Generator().manual_seed(0)).unbind()
    before, after = theta.double().numpy(), parts_of(theta - 0.1 * flat, layout)
    follow, _ = one_pass(layout, table, count, theta, kept=("p1",), threads=1)
    follow.follow(Taken(after, parts_of(flat, layout), lr=0.1))
    (place, truth), *_ = truths
    wanted = truth(before**2)
    np.testing.assert_allclose(follow.into.sums[0, place : place + len(wanted)], wanted, rtol=1e-12)
    assert torch.equal(follow.gradient[-size:], flat[-size:])
