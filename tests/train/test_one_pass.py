"""Runs whose update and measurement are one pass against runs that call PyTorch's optimiser."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from conftest import config
from neuralmech.training import run as runs
from neuralmech.training.begin import begin
from neuralmech.training.execute import Plain
from neuralmech.training.one_pass import InOnePass
from train_twins import contents

pytestmark = pytest.mark.usefixtures("found_once")

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "schedule": {"name": "cosine", "warmup": 5}}
ADAM = {"name": "adam", "lr": 0.01, "weight_decay": 0.05, "schedule": {"name": "cosine", "warmup": 5}}
TRANSFORMER = {"name": "transformer", "width": 16, "depth": 1, "heads": 2}
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
    "transformer": {"model": TRANSFORMER, "data": TOKENS},
    "every third": {"track": {"every": 3}},
    "site sums": {"track": {"charges": "site"}},
    "halves": {"track": {"noise": 2}},
    "whole set": {"track": {"noise": 5, "noise_from": "set"}},
    "parameters": {"track": {"parameters": 2}},
    "adam": {"optim": ADAM, "track": {"norms": 3}},
    "adamw, batch norm": {"optim": {**ADAM, "name": "adamw"}, "model": {**MLP, "norm": "batch"}},
    "adam, fp64": {"optim": {**ADAM, "betas": [0.3, 0.99]}, "train": {"precision": "fp64"}},
    "adamw, transformer": {"optim": {**ADAM, "name": "adamw"}, "model": TRANSFORMER, "data": TOKENS},
    "adamw, small matrices": {"optim": {**ADAM, "name": "adamw"}, "model": {**MLP, "activation": "none"}},
    "adamw, every third": {"optim": {**ADAM, "name": "adamw"}, "track": {"every": 3, "norms": 0}},
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
        ({"name": "adam", "lr": 0.1, "amsgrad": True}, {}, {}),
        ({**ADAM, "groups": [{"match": "bias", "lr": 0.5}]}, {}, {}),
        (SGD, {"precision": "fp16"}, {}),
    ],
)
def test_other_updates_are_left_to_pytorch(optim, train, data):
    assert isinstance(begin(config(optim=optim, train={"steps": 1, **train}, data=data)).execution, Plain)


def test_an_update_of_other_bits_is_left_to_pytorch(monkeypatch):
    assert isinstance(begin(config(train={"steps": 1})).execution, InOnePass)
    assert isinstance(begin(config(train={"steps": 1}, optim=ADAM)).execution, InOnePass)
    for name in ("moves_like_torch", "moves_like_adam"):
        monkeypatch.setattr(f"neuralmech.charges.cpu.{name}", lambda *_: False)
    assert isinstance(begin(config(train={"steps": 1})).execution, Plain)
    assert isinstance(begin(config(train={"steps": 1}, optim=ADAM)).execution, Plain)


def halve(p):
    p.grad.mul_(0.5)


class Hooked(nn.Module):
    """Uses `.grad` on the way: a hook that halves a gradient, reentrant checkpointing, a parameter frozen late."""

    def __init__(self, **_):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.unused = nn.Parameter(torch.ones(8))
        self.calls = 0
        self.second.weight.register_post_accumulate_grad_hook(halve)

    def forward(self, x):
        self.calls += 1
        if self.calls > 10:
            self.first.bias.requires_grad_(False)
        hidden = checkpoint(lambda h: torch.relu(self.second(h)), torch.relu(self.first(x)), use_reentrant=True)
        return self.third(hidden)


class Sparse(nn.Module):
    def __init__(self, **_):
        super().__init__()
        self.rows, self.head = nn.Embedding(8, 8, sparse=True), nn.Linear(8, 8)

    def forward(self, x):
        return self.head(torch.relu(self.rows((x.abs() * 4).long().clamp(max=7))).mean(dim=1))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # checkpointing in evaluation
@pytest.mark.parametrize("optim", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("name", ["Hooked", "Sparse"])
def test_models_that_meddle_with_gradients_train_as_before(run, monkeypatch, name, optim):
    custom = {"_target_": f"{__name__}.{name}"}
    options = {"optim": optim, "model": custom, "data": INPUTS, "track": {"every": 100}}
    ends = []
    for is_ours in (True, False):
        if not is_ours:
            monkeypatch.setattr(runs, "in_one_pass", lambda run: None)
        assert isinstance(begin(config(**options)).execution, InOnePass) == is_ours
        ends.append(list(states(run(**options))))
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
