"""Runs whose update and measurement are one pass against runs that call PyTorch's optimiser."""

import numpy as np
import pytest
import torch

from conftest import config
from neuralmech.train import run as runs
from neuralmech.train.execute import Plain
from neuralmech.train.loop import begin
from neuralmech.train.one_pass import InOnePass
from train_twins import contents

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "schedule": {"name": "cosine", "warmup": 5}}
MLP = {"name": "mlp", "width": 8, "depth": 2}
TOKENS = {"name": "tokens", "task": "markov", "states": 64, "batch_size": 4, "size": 16}
INPUTS = {"shape": [8], "classes": 8}
IMAGES = {**INPUTS, "shape": [1, 8, 8]}
CASES = {
    "mlp": {},
    "no momentum": {"optim": {"lr": 0.1, "weight_decay": 0.01}},
    "fp64": {"train": {"precision": "fp64"}},
    "bf16": {"train": {"precision": "bf16"}},
    "batch norm": {"model": {**MLP, "norm": "batch"}},
    "conv net": {"model": {"name": "convnet", "width": 8, "depth": 2}, "data": IMAGES},
    "small matrices": {"model": {**MLP, "activation": "none"}, "track": {"norms": 3}},
    "large matrices": {"model": {**MLP, "activation": "none"}, "track": {"norms": 3, "full": 2}},
    "transformer": {"model": {"name": "transformer", "width": 16, "depth": 1, "heads": 2}, "data": TOKENS},
    "every third": {"track": {"every": 3}},
    "site sums": {"track": {"charges": "site"}},
    "halves": {"track": {"noise": 2}},
    "whole set": {"track": {"noise": 5, "noise_from": "set"}},
    "parameters": {"track": {"parameters": 2}},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_runs_are_those_of_pytorchs_optimiser(run, monkeypatch, options):
    """Parameters and momenta to the last bit; charges to the order in which float64 numbers are added."""
    options = {"optim": SGD, "model": MLP, "data": INPUTS} | options
    assert begin(config(**options)).flat.layout.size % 8 == 0  # whole vector registers, see `moves_like_torch`
    monkeypatch.setattr(Plain, "take", None)  # a run that falls back fails
    ours = run(**options)
    monkeypatch.undo()
    monkeypatch.setattr(runs, "in_one_pass", lambda run: None)
    theirs = run(**options)
    for one, other in zip(states(ours), states(theirs), strict=True):
        assert torch.equal(one, other)
    mine, plain = contents(ours), contents(theirs)
    assert mine.keys() == plain.keys()
    for name, values in mine.items():
        if name == "status":
            assert values == plain[name]
        elif values.dtype.kind == "f":
            # A charge is a difference of sums, and a residual one of sums that cancel: rounding is that of the sums.
            np.testing.assert_allclose(values, plain[name], rtol=1e-10, atol=1e-13, err_msg=name)
        else:
            assert np.array_equal(values, plain[name]), name


def states(folder):
    """Parameters, buffers and momenta of the last checkpoint."""
    path = max((folder / "checkpoints").glob("*.pt"), key=lambda p: int("".join(c for c in p.stem if c.isdigit())))
    content = torch.load(path, weights_only=True)
    yield from content["model"].values()
    for state in content["optimizer"]["state"].values():
        yield from (v for v in state.values() if isinstance(v, torch.Tensor))


@pytest.mark.parametrize(
    ("optim", "train", "data"),
    [
        ({**SGD, "nesterov": True}, {}, {}),
        ({**SGD, "dampening": 0.1}, {}, {}),
        ({"name": "sgdw", "lr": 0.1}, {}, {}),
        ({"name": "adam", "lr": 0.1}, {}, {}),
        (SGD, {"precision": "fp16"}, {}),
    ],
)
def test_other_updates_are_left_to_pytorch(optim, train, data):
    assert isinstance(begin(config(optim=optim, train={"steps": 1, **train}, data=data)).execution, Plain)


def test_an_update_of_other_bits_is_left_to_pytorch(monkeypatch):
    assert isinstance(begin(config(train={"steps": 1})).execution, InOnePass)
    monkeypatch.setattr("neuralmech.symmetry.one_pass.moves_like_torch", lambda *_: False)
    assert isinstance(begin(config(train={"steps": 1})).execution, Plain)
