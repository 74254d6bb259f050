"""Runs with each loss: trained as PyTorch would, evaluated over all that is held out, resumed and verified."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import config
from neuralmech.cli.entry import main
from neuralmech.errors import UserError
from neuralmech.losses import IGNORED
from neuralmech.record import open_record
from neuralmech.training.begin import begin
from neuralmech.training.claims import verify_run
from neuralmech.training.loop import evaluate, resume, train
from neuralmech.training.noise import Epoch
from train_twins import assert_twins, stopped

OWN = """
import torch
from torch.nn import functional as F

def data(classes=3, kind="soft"):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=g)
    y = x[:, :classes].sin()
    y = torch.softmax(y * 3, -1) if kind == "soft" else y
    return x[:30], y[:30], x[30:], y[30:]

def focal(outputs, targets, gamma=2.0):
    p = F.softmax(outputs, -1)
    return -(targets * (1 - p) ** gamma * p.log()).sum(-1).mean()
"""
SOFT = {"name": "_target_", "target": "own_loss.data", "batch_size": 8, "arguments": {}}
NUMBERS = {**SOFT, "arguments": {"kind": "numbers"}}
FOCAL = {"name": "_target_", "target": "own_loss.focal", "arguments": {"gamma": 1.5}}
STEPS = {"steps": 30, "eval_every": 10, "checkpoint": {"every": 10, "minutes": 0}}
WEIGHTED = {"name": "cross_entropy", "label_smoothing": 0.1, "weight": [1.0, 2.0, 0.5], "ignore_index": 1}


def focal(outputs, targets):
    p = outputs.softmax(-1)
    return -(targets * (1 - p) ** 1.5 * p.log()).sum(-1).mean()


RUNS = {  # name: data, loss, and the criterion that people write
    "soft": (
        SOFT, {"name": "cross_entropy", "label_smoothing": 0.1}, lambda o, y: F.cross_entropy(o, y, label_smoothing=0.1)
    ),
    "bce": (SOFT, {"name": "bce"}, F.binary_cross_entropy_with_logits),
    "mse": (NUMBERS, {"name": "mse"}, F.mse_loss),
    "custom": (SOFT, FOCAL, focal),
    "weights": (
        {"name": "synthetic", "shape": [5], "classes": 3, "size": 64, "batch_size": 8}, WEIGHTED,
        lambda o, y: F.cross_entropy(o, y, torch.tensor(WEIGHTED["weight"]).double(), label_smoothing=0.1),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_code(tmp_path, monkeypatch):
    (tmp_path / "own_loss.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_loop_that_people_write(tmp_path, name):
    data, loss, criterion = RUNS[name]
    options = config(data=data, loss=loss, train=STEPS, optim={"momentum": 0.9})
    made = begin(options)
    twin = begin(options).setup.model
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        x, y = made.batches(step)
        value = criterion(twin(x).double(), y.double() if y.is_floating_point() else y)
        losses.append(value.item())
        value.backward()
        optimizer.step()
    (tmp_path / "run").mkdir()
    result = train(options, tmp_path / "run")
    with open_record(tmp_path / "run") as r:
        np.testing.assert_allclose(r.column("loss"), losses, rtol=1e-5)
        assert r.config["loss"]["name"] == loss["name"]
        x, y = made.setup.data.test[np.arange(len(made.setup.data.test))]
        with torch.no_grad():
            expected = criterion(twin.eval()(x).double(), y.double() if y.is_floating_point() else y).item()
        assert result.loss == pytest.approx(expected, rel=1e-4)
        assert np.isnan(result.accuracy) == (name in ("mse", "custom"))


@torch.no_grad()
@pytest.mark.parametrize("name", RUNS)
def test_an_evaluation_does_not_depend_on_its_batches(name):
    data, loss, _ = RUNS[name]
    made = begin(config(data=data, loss=loss, train={"precision": "fp64"}))
    settings = [evaluate(made.setup.model, made.setup.data, made.config.loss, batch) for batch in (3, 1024)]
    assert settings[0][0] == pytest.approx(settings[1][0], rel=1e-12)
    np.testing.assert_equal(settings[0][1], settings[1][1])


def test_an_epoch_s_gradient_is_that_of_the_loss_of_all_its_samples():
    """With weights of classes a batch weighs the sum of those of its labels, and ignored ones nothing."""
    made = begin(config(loss=WEIGHTED, train={"precision": "fp64"}))
    batches = [made.batches(k) for k in range(made.batches.per_epoch)]
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert (y == IGNORED).any()
    value = F.cross_entropy(made.setup.model(x), y, torch.tensor(WEIGHTED["weight"]).double(), label_smoothing=0.1)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(made.setup.model.parameters()))])
    epoch = Epoch(made._gradients, batches)
    assert len(list(epoch)) == made.batches.per_epoch
    torch.testing.assert_close(epoch.whole().norm(), expected.norm(), rtol=1e-12, atol=0)


def test_resumed_and_verified_with_the_same_loss(finished, tmp_path, monkeypatch):
    options = {"loss": WEIGHTED, "train": STEPS}
    folder = stopped(tmp_path, monkeypatch, 17, options)
    with pytest.raises(UserError, match="loss"):
        resume(folder, {"loss.label_smoothing": 0.2})
    resume(folder, {})
    assert_twins(folder, finished(**options), 30)
    assert verify_run(folder, None, 4).table["holds"].all()


def test_a_loss_of_ones_own_is_named_again(finished, tmp_path, monkeypatch):
    """Never taken from a record: neither when a run is resumed nor when it is verified."""
    options = {"loss": FOCAL, "data": SOFT, "train": STEPS}
    folder = stopped(tmp_path, monkeypatch, 17, options)
    data = {"data": "custom", "data._target_": "own_loss.data"}
    with pytest.raises(
        UserError, match=r"must not name \(_target_='own_loss.focal', gamma=1.5\); if that is yours, give"
    ):
        resume(folder, data)
    with pytest.raises(UserError, match="gamma"):
        resume(folder, {**data, "loss": "custom", "loss._target_": "own_loss.focal"})
    resume(folder, {**data, "loss": "custom", "loss._target_": "own_loss.focal", "loss.gamma": 1.5})
    assert_twins(folder, finished(**options), 30)
    code = {"data": {"_target_": "own_loss.data"}, "loss": {"_target_": "own_loss.focal", "gamma": 1.5}}
    with pytest.raises(UserError, match=r"own_loss\.focal"):
        verify_run(folder, None, 4, code={"data": code["data"]})
    table = verify_run(folder, None, 4, code=code).table
    assert table["holds"].all()
    assert set(table["family"]) == {"translation", "rescale"}


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = [
        "train.steps=3",
        "model=mlp",
        "data=custom",
        "data._target_=own_loss.data",
        "data.batch_size=8",
        "device=cpu",
    ]
    custom = ["loss=custom", "loss._target_=own_loss.focal", "+loss.gamma=3"]
    main(["train", *common, *custom, "hydra.run.dir=one"])
    assert "accuracy" not in capsys.readouterr().out
    with open_record(tmp_path / "one") as r:
        assert r.config["loss"] == {"name": "_target_", "target": "own_loss.focal", "arguments": {"gamma": 3}}
    main(["verify", *common, *custom])
    main(["train", *common, "loss=cross_entropy", "loss.label_smoothing=0.1", "hydra.run.dir=two"])
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss=hinge"], "hinge"),
        (["loss.label_smoothing=2"], "loss.label_smoothing"),
        (["loss.weight=[1,2]"], "loss.weight has 2 numbers for 10 classes"),
        (["loss=custom", "loss._target_=own_loss.absent"], "loss._target_=own_loss.absent names nothing"),
        (["loss=custom", "loss._target_=own_loss.data"], "loss._target_=own_loss.data"),
        (["loss=bce"], "loss=bce"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", "model=mlp", "train.steps=3", "device=cpu", "hydra.run.dir=run", *words])
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2
    assert said.startswith("neuralmech: ")
    assert message in said
    assert "\n" not in said
    assert not (tmp_path / "run").exists()


def test_held_out_samples_that_the_model_refuses_are_named_before_the_run(tmp_path):
    (tmp_path / "own_shapes.py").write_text(
        "import torch\ndef data():\n    y = torch.arange(20) % 3\n"
        "    return torch.randn(20, 5), y, torch.randn(20, 4), y\n"
    )
    data = {"name": "_target_", "target": "own_shapes.data", "batch_size": 8, "arguments": {}}
    with pytest.raises(UserError, match=r"held-out inputs and targets of shape \(\(4,\), \(\)\) do not go with"):
        begin(config(data=data))
