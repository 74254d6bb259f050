"""The loss of a full-batch run against the work of its gradient."""

import numpy as np
import pytest
import torch

from conftest import config
from neuralmech.compare.loss_balance import loss_balance
from neuralmech.record import open_record
from neuralmech.train import loop
from train_twins import assert_twins

FULL = {"data": {"batch_size": 51}, "model": {"name": "mlp", "width": 6, "depth": 2, "activation": "tanh"}}


def test_work_is_the_gradient_along_the_steps_on_both_sides(run):
    """Against gradients taken anew at the parameters of every step."""
    optim = {"lr": 0.3, "momentum": 0.8, "weight_decay": 1e-2}
    parts = {**FULL, "optim": optim, "train": {"precision": "fp64", "steps": 6}}
    at, theta, slopes = loop.begin(config(**parts)), [], []
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
    assert torch.is_tensor(loop.begin(config(**options)).tracker.last)
