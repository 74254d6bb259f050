"""Adam's step and the sums of its signals in one pass, against PyTorch's optimiser and sums in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from neuralmech.charges.cpu_adam import SIGNALS, AdamMover, moves_like_adam
from neuralmech.charges.cpu_strips import apart
from neuralmech.charges.plan import Plan, QuadraticPlan, TranslationPlan, rectangles, together
from neuralmech.charges.step import FORMS, AdamMotion, AdamState, Step, Taken
from plans import KINDS, SHAPES, parts_of, planned

NUMBERS = {"weight_decay": 0.07, "betas": (0.9, 0.995), "eps": 1e-7}


def mover_of(layout, table, size, theta, pieces=(), threads=1):
    """Charges are the plan's sums one by one, then two translation charges, of single entries and of pieces."""
    pieces = together(list(pieces))
    entries = sparse.csr_array(([0.5, -2.0], ([0, 0], [0, layout.size - 1])), shape=(1, layout.size))
    own = sparse.csr_array((1 + int((pieces["charge"] + pieces["columns"]).max(initial=0)), layout.size))
    translation = TranslationPlan(pieces, sparse.csr_array(sparse.vstack([own[1:], entries])))
    plan = Plan(QuadraticPlan(table, size, sparse.eye_array(size, format="csr")), translation, layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralmech.charges.cpu_adam.threads_for", lambda layout: threads)
        return AdamMover(plan, theta), size + translation.charges


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shapes=st.lists(SHAPES, min_size=1, max_size=5), threads=st.integers(1, 3))
def test_signals_are_their_definitions(data, shapes, threads):
    kinds = [data.draw(KINDS) for _ in shapes]
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    decoupled = data.draw(st.booleans())
    layout, table, size, truths = planned(shapes, kinds, groups=2)
    each = data.draw(st.booleans())
    large = [layout.offsets[name] for name, shape in layout.shapes.items() if np.prod(shape) >= 6]
    first = large[0] if large else 0  # a piece is of one parameter
    pieces = [
        rectangles(start=first + o, columns=2, charge=0, column_step=int(each), weight=-1.5)
        for o in ([0, 2, 4] if large else [])
    ]
    generator = torch.Generator().manual_seed(0)
    theta, flat, mean, square = (torch.randn(layout.size, dtype=dtype, generator=generator) for _ in range(4))
    square, before = square.abs() + 0.1, theta.clone()
    mover, charges = mover_of(layout, table, size, theta, pieces, threads)
    out = torch.full((len(SIGNALS), charges), torch.nan, dtype=torch.float64)
    lr = data.draw(st.sampled_from([0.01, 0.0]))
    motion = AdamMotion(parts_of(flat, layout), mean, square, lr=lr, taken=7.0, decoupled=decoupled, **NUMBERS)
    step = mover.measure(motion, out)

    step = Step(before, theta, flat, step.rate, moments=step.moments)
    for signal, found in zip(SIGNALS, out.numpy(), strict=True):
        form = FORMS[signal]
        product = (step.vector(form.x) * step.vector(form.y)).numpy()
        for place, truth in truths:
            wanted = truth(product)
            # w is rounded to the type of θ, as the rule has it
            rtol = 1e-12 if dtype == torch.float64 or not signal.startswith(("metric", "rule")) else 1e-6
            scale = truth(np.abs(product)).max(initial=1.0)  # terms of a sum cancel
            np.testing.assert_allclose(found[place : place + len(wanted)], wanted, rtol=rtol, atol=rtol * scale)
        if form.z is None:
            continue
        z, behind = step.vector(form.z).numpy(), found[size:]
        near = 1e-11 if dtype == torch.float64 else 2e-5  # w is rounded, and terms cancel
        assert behind[-1] == pytest.approx(0.5 * z[0] - 2 * z[-1], rel=near, abs=near)
        if pieces:
            mine = -1.5 * z[first : first + 6].reshape(3, 2)
            wanted = mine.sum(axis=0) if each else [mine.sum()]
            np.testing.assert_allclose(behind[: len(wanted)], wanted, rtol=near, atol=near)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shapes=st.lists(SHAPES, min_size=1, max_size=5), threads=st.integers(1, 3))
def test_a_step_that_was_taken_has_the_signals_of_one_that_is(data, shapes, threads):
    """Out of tensors elsewhere; θ becomes θ_{k+1}."""
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    layout, table, size, _ = planned(shapes, [data.draw(KINDS) for _ in shapes], groups=2)
    theta, flat, mean, square = torch.randn(4, layout.size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    square, moved, followed = square.abs() + 0.1, theta.clone(), theta.clone()
    mover, charges = mover_of(layout, table, size, moved, (), threads)
    wanted, found = torch.full((2, len(SIGNALS), charges), torch.nan, dtype=torch.float64)
    motion = AdamMotion(parts_of(flat, layout), mean, square, lr=0.01, taken=7.0, decoupled=True, **NUMBERS)
    mover.measure(motion, wanted)
    elsewhere = [[p.clone() for p in parts_of(of, layout)] for of in (moved, flat, mean, square)]
    follower, _ = mover_of(layout, table, size, followed, (), threads)
    adam = AdamState(*elsewhere[2:], NUMBERS["betas"], NUMBERS["eps"], 7.0)
    follower.measure(Taken(*elsewhere[:2], lr=0.01, adam=adam), found)

    assert torch.equal(followed, moved)
    torch.testing.assert_close(found, wanted, rtol=1e-12 if dtype == torch.float64 else 1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("decay", [0.0, 0.07])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.3, 0.5), (0.5, 0.9), (0.0, 0.99)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_update_is_pytorchs_to_the_last_bit(dtype, betas, decay, kind):
    """Measured and not, with gradients that are infinite or no number at the end."""
    assert moves_like_adam(dtype)  # else this machine uses PyTorch's own
    layout, table, size, _ = planned([(37, 53), (61,), (1858,), (8, 3, 3, 3)], ["both", "rows", "none", "columns"], 1)
    assert layout.size == 4096  # whole vector registers, see `moves_like_torch`
    torch.manual_seed(0)
    theirs = torch.nn.Parameter(torch.randn(layout.size, dtype=dtype))
    ours, m, v = theirs.detach().clone(), *torch.zeros(2, layout.size, dtype=dtype)
    mover, charges = mover_of(layout, table, size, ours, threads=2)
    out = torch.zeros(len(SIGNALS), charges, dtype=torch.float64)
    numbers = {"betas": betas, "weight_decay": decay, "eps": 1e-8}
    optimizer = kind([theirs], lr=0.1, fused=True, **numbers)
    for taken, lr in enumerate((0.1, 0.033, 1e-3, 0.0, 0.1, 0.1), 1):
        theirs.grad = torch.randn(layout.size, dtype=dtype)
        if taken == 5:
            theirs.grad[::7], theirs.grad[1::7], theirs.grad[2::7] = torch.inf, -torch.inf, torch.nan
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        motion = AdamMotion(
            parts_of(theirs.grad, layout), m, v, lr=lr, taken=taken, decoupled=kind is torch.optim.AdamW, **numbers
        )
        if taken % 2:
            mover.measure(motion, out)
        else:
            mover.move(motion)
        state = optimizer.state[theirs]
        for mine, other in ((ours, theirs.detach()), (m, state["exp_avg"]), (v, state["exp_avg_sq"])):
            torch.testing.assert_close(mine, other, rtol=0, atol=0, equal_nan=True)


@settings(deadline=None)
@given(st.data(), st.integers(1, 4))
def test_parts_of_translation_charges_share_none(data, parts):
    """Each piece is in one part, and no charge in two."""
    drawn = st.tuples(st.integers(0, 30), st.integers(1, 3), st.integers(1, 5), st.booleans(), st.integers(0, 6))
    pieces = together(
        [
            rectangles(start=0, charge=charge, rows=rows, columns=columns, column_step=int(each), row_step=step)
            for charge, rows, columns, each, step in data.draw(st.lists(drawn, max_size=20))
        ]
    )
    found = apart(pieces, parts)
    assert len(found) <= parts
    assert sorted(map(tuple, np.concatenate([pieces[:0], *found]))) == sorted(map(tuple, pieces))
    charges = [
        {
            int(p["charge"] + i * p["row_step"] + j * p["column_step"])
            for p in part
            for i in range(p["rows"])
            for j in range(p["columns"])
        }
        for part in found
    ]
    assert sum(len(c) for c in charges) == len(set().union(*charges))


def test_a_large_model_is_shared_out_evenly():
    pieces = rectangles(start=0, columns=10, charge=10 * np.repeat(np.arange(20), 5), column_step=1)
    assert [len(part) for part in apart(pieces, 2)] == [50, 50]
