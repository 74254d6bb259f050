"""The budget closes, each part a plain sum over recorded steps; the loss of a full-batch run pays for its motion."""

import numpy as np
import pytest
import torch

from conftest import config
from neuralmech import analyze
from neuralmech.compare.measure.accounts import CAUSES, THROUGH_MEMORY, account, budget_table
from neuralmech.compare.measure.loss import loss_balance
from neuralmech.record import open_record
from neuralmech.training import loop
from neuralmech.training.begin import begin
from train_twins import assert_twins

pytestmark = pytest.mark.usefixtures("found_once")

OPTIM = [
    {"lr": 0.1, "weight_decay": 5e-3, "momentum": 0.9},
    {"lr": 0.1, "weight_decay": 1e-2},
    {"lr": 0.05, "weight_decay": 5e-3, "momentum": 0.8, "dampening": 0.3},
    {"lr": 0.05, "weight_decay": 5e-3, "momentum": 0.8, "nesterov": True},
    {"lr": 0.1, "weight_decay": 5e-3, "momentum": 0.9, "schedule": {"name": "cosine", "warmup": 5}},
]
FULL = {"data": {"batch_size": 51}, "model": {"name": "mlp", "width": 6, "depth": 2, "activation": "tanh"}}


@pytest.mark.parametrize("optim", OPTIM, ids=str)
@pytest.mark.parametrize(("precision", "bound"), [("fp64", 1e-6), ("fp32", 1e-4)])
def test_the_budget_closes(run, optim, precision, bound):
    steps = 60 if precision == "fp64" else 400  # the motion must be well above the rounding of one step
    folder = run(
        optim=optim, train={"steps": steps, "precision": precision}, model={"name": "mlp", "width": 6, "norm": "batch"}
    )
    with open_record(folder) as record:
        for family in record.families:
            table = budget_table(record, family, block=17)
            assert (table["closure_error"] <= bound).all()
            parts = table[list(CAUSES)].sum(axis=1) + table["closure"]
            np.testing.assert_allclose(parts, table["motion"], atol=1e-12 * table["moved"].max())


@pytest.mark.parametrize("block", [7, 1000])
def test_parts_are_sums_over_the_recorded_steps(run, block):
    """Against the measured charges at every step, and the buffer rebuilt from them; nothing integrated."""
    lr, wd, beta = 0.1, 1e-2, 0.9
    folder = run(optim={"lr": lr, "weight_decay": wd, "momentum": beta}, train={"steps": 50, "precision": "fp64"})
    with open_record(folder) as record:
        charges = record.charges("rescale")
        q, d, r = (getattr(charges, s)[:] for s in ("value", "drive_update", "residual"))
        found = account(record, "rescale", block)
    origins = tuple(THROUGH_MEMORY.values())  # of weight decay, discretisation, symmetry breaking
    buffers, memory = (dict.fromkeys(origins, np.zeros(q.shape[1])) for _ in range(2))
    for k in range(len(q) - 1):
        for origin, forced in zip(origins, (wd * q[k], 0 * r[k], r[k]), strict=True):
            memory[origin] = memory[origin] - 2 * lr * beta * buffers[origin]
            buffers[origin] = beta * buffers[origin] + forced
        buffers["memory_discretisation"] = buffers["memory_discretisation"] - lr * d[k]
    expected = {
        "weight_decay": -2 * lr * wd * q[:-1].sum(axis=0) + memory["memory_weight_decay"],
        "discretisation": lr**2 * d[:-1].sum(axis=0) + memory["memory_discretisation"],
        "symmetry_breaking": -2 * lr * r[:-1].sum(axis=0) + memory["memory_symmetry_breaking"],
        **memory,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found.parts[name], value, rtol=1e-8, atol=1e-13, err_msg=name)
    assert np.abs(memory["memory_weight_decay"]).max() > 1e-3  # the test tests something
    np.testing.assert_allclose(found.measured, q[-1] - q[0])


def test_without_momentum_nothing_is_remembered(run):
    with open_record(run(optim={"lr": 0.1, "weight_decay": 1e-2})) as record:
        for family in record.families:
            assert (budget_table(record, family)[list(THROUGH_MEMORY.values())] == 0).all(axis=None)


def test_of_a_matrix_the_trace_is_accounted(run):
    folder = run(model={"name": "mlp", "width": 4, "depth": 2, "activation": "none"}, train={"precision": "fp64"})
    with open_record(folder) as record:
        charges = record.charges("linear")
        diagonal = (charges.index["channel"] == charges.index["partner"]).to_numpy()
        assert not diagonal.all()
        table = budget_table(record, "linear")
        trace = (charges.value[record.rows - 1] - charges.value[0])[diagonal].sum()
        assert table["motion"].sum() == pytest.approx(trace)
        assert (table["closure_error"] <= 1e-6).all()
        count = len(charges.index)
    (row,) = analyze(folder).verdict.query("family == 'linear'").to_dict("records")
    assert row["charges"] == count > table["charges"].sum()  # the verdict is on all of them


def test_work_is_the_gradient_along_the_steps_on_both_sides(run):
    """Against gradients taken anew at the parameters of every step."""
    optim = {"lr": 0.3, "momentum": 0.8, "weight_decay": 1e-2}
    parts = {**FULL, "optim": optim, "train": {"precision": "fp64", "steps": 6}}
    at, theta, slopes = begin(config(**parts)), [], []
    for _ in range(6):
        theta.append(at.flat.theta.detach().clone())
        loop.take_step(at, *at.batches(at.step))
        slopes.append(at.flat.grad.clone())
    with open_record(run(**parts)) as r:
        work, behind = r.column("work"), r.column("work_behind")
    steps = [b - a for a, b in zip(theta, [*theta[1:], at.flat.theta.detach()], strict=True)]
    np.testing.assert_allclose(work, [float(g @ d) for g, d in zip(slopes, steps, strict=True)], rtol=1e-12)
    assert behind[0] == 0
    np.testing.assert_allclose(behind[1:], [float(g @ d) for g, d in zip(slopes[1:], steps, strict=False)], rtol=1e-12)


def test_the_orders_are_orders(run):
    """Over the same time, half the step halves the error of the first order and quarters that of the second."""
    found = []
    for lr, steps in ((0.2, 40), (0.1, 80)):
        with open_record(run(**FULL, optim={"lr": lr}, train={"precision": "fp64", "steps": steps + 1})) as r:
            table, curve = loss_balance(r)
            assert curve.measured[-1] < -0.05
            found.append(table.set_index("order")["final_error"] * abs(table["change"][0]))
    assert np.log2(found[0]["first"] / found[1]["first"]) == pytest.approx(1, abs=0.15)
    assert np.log2(found[0]["second"] / found[1]["second"]) == pytest.approx(2, abs=0.3)


def test_runs_whose_steps_see_different_losses_have_none(run):
    for parts in ({}, {**FULL, "track": {"every": 2}}):
        with open_record(run(**parts)) as r:
            table, curve = loss_balance(r)
            assert table.empty
            assert curve is None


def test_a_resumed_run_knows_the_step_behind_it(run, tmp_path):
    options = {**FULL, "train": {"steps": 12, "checkpoint": {"every": 5, "minutes": 0, "keep": None}}}
    whole, folder = run(**options), run(**options)
    for name in ("10", "12"):
        for path in (folder / "checkpoints").glob(f"*{name}*"):
            path.unlink()
    loop.resume(folder, {})
    assert_twins(folder, whole, 12)
    assert torch.is_tensor(begin(config(**options)).tracker.last)
