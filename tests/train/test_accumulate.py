"""Batches in parts: the same steps, charges and records as at once."""

import sys

import numpy as np
import pytest
import torch

from conftest import config
from neuralmech.data import Dataset
from neuralmech.data.parts import Samples
from neuralmech.errors import UserError
from neuralmech.losses import IGNORED, CrossEntropy, SquaredError
from neuralmech.record import open_record
from neuralmech.training import loop
from neuralmech.training.begin import begin
from neuralmech.training.execute import Plain
from neuralmech.training.one_pass import InOnePass
from neuralmech.training.passes import parts_of
from train_twins import assert_alike, contents

STEPS = 12


@pytest.fixture
def ran(tmp_path):
    def train(name, **options):
        (tmp_path / name).mkdir()
        loop.train(config(**options), tmp_path / name)
        return tmp_path / name

    return train


RULES = [
    pytest.param({"name": "sgd", "lr": 0.1, "momentum": 0.9}, InOnePass, id="sgd"),
    pytest.param({"name": "adamw", "lr": 1e-3}, InOnePass, id="adamw"),
    pytest.param({"name": "sgd", "lr": 0.1, "nesterov": True, "momentum": 0.9}, Plain, id="nesterov"),
    pytest.param({"name": "sgd", "lr": 0.1, "sam_rho": 0.05}, Plain, id="sam"),
    pytest.param({"name": "sgd", "lr": 0.1, "clip_norm": 0.3}, Plain, id="clipped"),
    pytest.param({"name": "muon", "lr": 1e-3, "momentum": 0.95, "polar": "exact"}, Plain, id="muon"),
]


@pytest.mark.parametrize(("optim", "way"), RULES)
def test_a_record_is_that_of_whole_batches(ran, optim, way):
    """In float64, so that rounding leaves ten digits to compare; 16 samples in 4 parts."""
    options = {"optim": optim, "data": {"batch_size": 16}}
    train = {"precision": "fp64", "steps": STEPS, "eval_every": 5}
    parts = config(**options, train={**train, "accumulate": 4})
    assert isinstance(begin(parts).execution, way)
    assert_alike(ran("whole", **options, train=train), ran("parts", **options, train={**train, "accumulate": 4}), 1e-10)


def test_in_float32_it_differs_by_rounding(ran):
    """Each gradient by about 10⁻⁷ of its size; over 12 steps that does not grow beyond 10⁻⁵."""
    options = {"data": {"batch_size": 16}}
    whole = ran("whole", **options, train={"steps": STEPS})
    parts = ran("parts", **options, train={"steps": STEPS, "accumulate": 8})
    assert_alike(whole, parts, 1e-5)
    assert not np.array_equal(contents(whole)["steps/loss"], contents(parts)["steps/loss"])  # it did something


def masked(count=64, classes=4):
    """Most labels do not count, so that some parts of four have none."""
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, 6, generator=source), torch.randint(classes, (count,), generator=source)
    y[torch.rand(count, generator=source) < 0.7] = IGNORED
    y[:4] = torch.arange(4)
    return Dataset(Samples(x, y), Samples(x[:8], y[:8]), classes)


def labelled(count=64):
    data = masked(count)
    return data.train.x, data.train.y, data.test.x, data.test.y


@pytest.mark.parametrize(
    "loss", [{}, {"loss": {"name": "cross_entropy", "weight": [1.0, 2.0, 5.0, 0.5]}}, {"loss": {"name": "mse"}}]
)
def test_targets_that_do_not_count_and_those_that_weigh_more(ran, monkeypatch, loss):
    monkeypatch.setitem(sys.modules, "accumulated_data", sys.modules[__name__])
    data = {"name": "_target_", "target": "accumulated_data.labelled", "batch_size": 16, "classes": 4}
    options = {"data": data, "model": {"name": "mlp", "width": 8}, **loss}
    train = {"precision": "fp64", "steps": STEPS}
    parts = config(**options, train={**train, "accumulate": 8})
    batches = begin(parts).batches
    weights = torch.stack([y.view(2, 8).ge(0).sum(0) for y in (batches(k)[1] for k in range(STEPS))])
    assert (weights == 0).any()
    assert weights.unique().numel() > 2
    assert_alike(ran("whole", **options, train=train), ran("parts", **options, train={**train, "accumulate": 8}), 1e-10)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), CrossEntropy(weight=[1.0, 3.0, 0.5], label_smoothing=0.2), SquaredError()]
)
def test_shares_make_the_mean_of_the_whole(loss):
    source = torch.Generator().manual_seed(1)
    outputs = torch.randn(12, 3, dtype=torch.float64, generator=source)
    y = torch.randint(3, (12,), generator=source)
    y[[0, 4, 8, 1, 6]] = IGNORED  # all three of the first part
    parts = list(parts_of(outputs, y, 4, loss.weight_of))
    assert float(parts[0][2]) == 0
    total = sum(share * loss(part, targets) for part, targets, share in parts)
    torch.testing.assert_close(total, loss(outputs, y), rtol=1e-13, atol=0)


@pytest.mark.parametrize("noise_from", ["halves", "set"])
def test_the_noise_is_that_of_whole_batches(ran, noise_from):
    options = {"data": {"batch_size": 16, "size": 160}, "track": {"noise": 3, "noise_from": noise_from}}
    train = {"precision": "fp64", "steps": STEPS}
    whole, parts = ran("whole", **options, train=train), ran("parts", **options, train={**train, "accumulate": 4})
    assert_alike(whole, parts, 1e-9)
    with open_record(parts) as record:
        assert np.isfinite(record.charges("rescale").gradient_noise[:]).all()


def test_another_number_of_parts_may_follow(ran):
    """A resumed run may need less memory, or have more."""
    options = {"data": {"batch_size": 16}, "train": {"precision": "fp64", "steps": STEPS}}
    whole, half = (
        ran("whole", **options),
        ran("half", **options | {"train": {"precision": "fp64", "steps": STEPS // 2}}),
    )
    loop.resume(half, {"train.accumulate": 4, "train.steps": STEPS})
    first, second = contents(whole), contents(half)
    np.testing.assert_allclose(second["rescale/value"], first["rescale/value"], rtol=1e-11, atol=1e-13)
    assert len(second["steps/step"]) == STEPS


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"accumulate": 3}, r"data\.batch_size=16 has no 3 equal parts for train\.accumulate=3; .*batch_size=18"),
        ({"accumulate": 0}, r"train\.accumulate=0 is too small"),
        ({"accumulate": 2, "cuda_graph": True}, r"train\.accumulate=2 does not go with train\.cuda_graph=true"),
    ],
)
def test_what_cannot_be(options, match):
    with pytest.raises(UserError, match=match):
        config(data={"batch_size": 16}, train=options)


def test_halves_need_equal_parts_too():
    with pytest.raises(UserError, match=r"track\.noise=1: the halves .* a multiple of 16, or track\.noise_from=set"):
        config(data={"batch_size": 24}, train={"accumulate": 8}, track={"noise": 1})
    config(data={"batch_size": 24}, train={"accumulate": 8}, track={"noise": 1, "noise_from": "set"})


def test_parts_of_one_sample():
    """Work where the model takes one; where it does not, that is said before anything is written."""
    options = {"data": {"batch_size": 8}, "train": {"accumulate": 8}}
    begin(config(**options)).batches.close()
    with pytest.raises(UserError, match=r"data\.batch_size=8 in 8 parts, .*: each is one sample"):
        begin(config(**options, model={"norm": "batch"}))
