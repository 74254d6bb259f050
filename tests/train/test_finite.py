"""A loss that is not finite ends the run at its step, whatever is recorded."""

import math

import numpy as np
import pytest
import torch

from conftest import config
from neuralmech.errors import RunError
from neuralmech.record import open_record
from neuralmech.training.checkpoint import checkpoints
from neuralmech.training.finite import FiniteLosses
from neuralmech.training.loop import resume, train

pytestmark = pytest.mark.usefixtures("found_once")

DIVERGING = {
    "model": {"name": "mlp", "width": 6, "depth": 2, "activation": "squared"},
    "optim": {"lr": 20.0, "momentum": 0.9},
    "train": {"steps": 200, "eval_every": 50, "checkpoint": {"every": 30, "minutes": 0}},
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.fixture
def first(finished):
    """The first step whose loss is not finite, by a run that records them all and goes on."""
    folder = finished(**{**DIVERGING, "train": {**DIVERGING["train"], "on_nan": "continue"}})
    with open_record(folder) as record:
        finite = np.isfinite(record.steps()["loss"])
    assert 1 < finite.argmin() < 30
    return int(finite.argmin())


@pytest.mark.parametrize(
    ("track", "rows"),
    [
        ({}, None),
        ({"steps": [[0, 1]]}, 1),
        ({"every": 100}, 1),
        ({"steps": [[0, 1], [150, 160]]}, 1),
        ({"every": 100, "block": 1}, 1),
    ],
)
@pytest.mark.parametrize("name", ["sgd", "sgdw"])  # in one pass, and call by call
def test_the_first_step_is_named_and_nothing_after_it_is_kept(tmp_path, first, track, rows, name):
    options = {**DIVERGING, "track": track, "optim": {**DIVERGING["optim"], "name": name}}
    with pytest.raises(RunError, match=f"the loss or a charge is not finite at step {first};"):
        train(config(**options), tmp_path)
    with open_record(tmp_path) as record:
        assert record.rows == (first if rows is None else rows)
        assert record.status == f"not finite at step {first}"
    assert checkpoints(tmp_path / "checkpoints") == [0]
    with pytest.raises(RunError, match=f"not finite at step {first};"):
        resume(tmp_path, {})


def test_rows_after_a_step_that_is_not_finite_are_cut_even_if_they_are(tmp_path, monkeypatch):
    """The step itself is not recorded, those around it are."""
    real = FiniteLosses.see_here

    def see(self, loss):
        real(self, math.inf if int(self.until) == 15 else loss)

    monkeypatch.setattr(FiniteLosses, "see_here", see)
    with pytest.raises(RunError, match=r"not finite at step 15; .* holds the 2 rows before it"):
        train(config(track={"every": 10}), tmp_path)
    with open_record(tmp_path) as record:
        assert record.steps()["step"].tolist() == [0, 10]


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    """The last update overflows, after the last loss."""
    schedule = {"name": "step", "step_size": 1, "gamma": 1e40}
    optim = {"name": "sgdw", "lr": 0.1, "schedule": schedule}
    options = {"optim": optim, "track": {"steps": [[0, 1]]}, "train": {"steps": 2}}
    with pytest.raises(RunError, match=r"a parameter is not finite at step 2; .* holds the 1 rows before it"):
        train(config(**options), tmp_path)
    assert checkpoints(tmp_path / "checkpoints") == [0]


def see_here(losses, loss):
    losses.see_here(loss.item())


@pytest.mark.parametrize("see", [FiniteLosses.see, see_here])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_are_counted_up_to_the_first_that_is_not_finite(device, bad, dtype, see):
    losses = FiniteLosses(5, torch.device(device))
    for k, value in enumerate([1.0, 3e38, -3e38, 0.0, bad, 1.0, bad, 2.0], start=5):
        see(losses, torch.tensor(value, dtype=dtype, device=device))
        assert losses.broken_at(k + 1) == (None if k < 9 else 9)
