"""What of each step turns back the one before: by definition, at the edge of stability, and over a resumed run."""

from itertools import pairwise

import numpy as np
import pytest

from conftest import config
from neuralmech.compare.measure.accounts import budget_table
from neuralmech.errors import UserError
from neuralmech.record import open_record
from neuralmech.training.begin import begin
from neuralmech.training.loop import resume, take_step
from train_twins import assert_twins, stopped

NET = {"name": "mlp", "width": 6, "depth": 2}
WHOLE = {"size": 80, "batch_size": 64}
HOW = {"precision": "fp64", "verify": False}
FLIPS = {"oscillation": True}


def whole_batch(run, lr, steps=300, **optim):
    return open_record(
        run(model=NET, data=WHOLE, optim={"lr": lr, **optim}, train={**HOW, "steps": steps}, track=FLIPS)
    )


def test_the_signal_is_its_definition():
    """By the parameters at successive steps; zero at the first."""
    optim = {"lr": 0.1, "momentum": 0.9}
    run = begin(config(model=NET, optim=optim, train={**HOW, "steps": 5}, track={**FLIPS, "norms_of": []}))
    thetas = [run.flat.theta.detach().clone()]
    for _ in range(4):
        take_step(run, *run.batches(run.step))
        thetas.append(run.flat.theta.detach().clone())
    found = run.tracker.block.room.parts.ring[:4, run.tracker.signals.index("drive_flip")].numpy()
    updates = [((a - b) / 0.1).numpy() for a, b in pairwise(thetas)]
    offsets, named = run.flat.layout.offsets, run.flat.named()
    order = np.concatenate(
        [np.arange(offsets[n], offsets[n] + named[n].numel()) for n, _ in run.setup.model.named_parameters()]
    )
    generators = run.setup.symmetries.generators()["rescale"]
    first = len(run.setup.symmetries.families["translation"])
    order_of_forms = list(run.tracker.layouts())
    at = slice(0, generators.shape[0]) if order_of_forms[0] == "rescale" else slice(first, first + generators.shape[0])
    np.testing.assert_array_equal(found[0], 0)
    for k in (1, 2, 3):
        flip = ((updates[k] - updates[k - 1]) / 2)[order]
        np.testing.assert_allclose(found[k, at], generators @ flip**2, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("lr", "least", "most"), [(0.02, 0.0, 0.05), (3.0, 0.5, 1.01)])
def test_descent_oscillates_at_the_edge_of_stability_alone(run, lr, least, most):
    """Full-batch descent: with a small step updates change little, near the edge they turn back."""
    with whole_batch(run, lr) as record:
        shares = budget_table(record, "rescale")["oscillation"]
    assert shares.between(least, most).all(), shares


def test_a_resumed_run_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    options = {
        "model": NET,
        "optim": {"lr": 0.1, "momentum": 0.9, "schedule": {"name": "cosine"}},
        "train": {"steps": 40, "checkpoint": {"every": 20, "minutes": 0}},
        "track": {**FLIPS, "block": 16},
    }
    from neuralmech.training.loop import train

    whole = tmp_path / "whole"
    whole.mkdir()
    train(config(**options), whole)
    folder = stopped(tmp_path, monkeypatch, 30, options)
    resume(folder, {})
    assert_twins(whole, folder, 40)


def test_rows_that_are_apart_have_no_oscillation():
    with pytest.raises(UserError, match=r"track\.oscillation=true compares consecutive steps; use track\.every=1"):
        config(track={"oscillation": True, "every": 2})
