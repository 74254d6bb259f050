"""Data that hold NaN or infinity are named, and not the learning rate."""

import sys

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from conftest import config
from neuralmech.errors import RunError, UserError
from neuralmech.training import loop
from neuralmech.training.begin import begin

DATA = {"name": "_target_", "batch_size": 8, "classes": 2, "workers": 0}


def given(place=37, value=float("nan"), held_out=False, streamed=False):
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    wrong = x.double()
    wrong[place, 2] = value
    parts = (x, y, wrong, y) if held_out else (wrong, y, x, y)
    return (TensorDataset(*parts[:2]), TensorDataset(*parts[2:])) if streamed else parts


class Filling(nn.Sequential):
    """A model for missing values."""

    def __init__(self):
        super().__init__(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, x):
        return super().forward(torch.nan_to_num(x))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "broken", sys.modules[__name__])


def options(**arguments):
    return {**DATA, "target": "broken.given", "arguments": arguments}


@pytest.mark.parametrize(("value", "held_out"), [(float("nan"), False), (float("inf"), False), (float("nan"), True)])
def test_data_in_memory_are_refused_before_anything_is_written(value, held_out, tmp_path):
    part = "held-out" if held_out else "training"
    wanted = f"data._target_=broken.given: 1 of 64 {part} samples hold NaN or inf, the first of them sample 37; mend"
    with pytest.raises(UserError, match=wanted):
        loop.train(config(data=options(value=value, held_out=held_out)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_overflow_in_the_run_s_precision_are_not_finite_there(tmp_path):
    with pytest.raises(UserError, match="1 of 64 training samples hold NaN or inf, the first of them sample 5"):
        begin(config(data=options(place=5, value=1e39)))


def test_streamed_data_are_named_when_they_are_met(tmp_path):
    data = {**options(streamed=True), "residency": "loader"}
    batches = begin(config(data=data)).batches
    step = next(k for k in range(8) if 37 in batches.samples(k))
    wanted = f"at step {step}; .*training sample 37 of data._target_=broken.given, met at step {step}, holds NaN or inf"
    with pytest.raises(RunError, match=wanted) as error:
        loop.train(config(data=data), tmp_path)
    assert "optim.lr" not in str(error.value)


def test_a_model_for_missing_values_takes_them(tmp_path):
    model = {"name": "_target_", "target": "broken.Filling", "arguments": {}}
    assert loop.train(config(data=options(), model=model), tmp_path).rows == 40


def test_a_rate_that_is_too_large_is_still_the_rate(tmp_path):
    with pytest.raises(RunError, match=r"rows before it; lower optim\.lr"):
        loop.train(config(optim={"lr": 1e30}), tmp_path)


def labelled(label, held_out):
    x, y, held = torch.randn(64, 5), torch.arange(64) % 2, torch.arange(64) % 2
    (held if held_out else y)[3 if label >= 0 else slice(None)] = label
    return TensorDataset(x, y), TensorDataset(x, held)


@pytest.mark.parametrize(
    ("label", "held_out", "message"),
    [
        (2, False, r" gives the label 2; labels go from 0 to 1 \(data.classes\): look at item 3 of the training set"),
        (7, True, r" gives the label 7; labels go from 0 to 1 \(data.classes\): look at item 3 of the held-out set"),
        (-100, True, ": no target of the held-out samples counts"),
    ],
)
def test_labels_that_no_loss_can_be_had_of(label, held_out, message):
    arguments = {"label": label, "held_out": held_out}
    with pytest.raises(UserError, match=f"^data._target_=broken.labelled{message}"):
        begin(config(data={**DATA, "target": "broken.labelled", "arguments": arguments}))
