"""Experiment trackers get means over sites of every n-th row, from the real libraries where they are installed."""

import csv
import time

import numpy as np
import pytest
import torch

import neuralmech
from conftest import config
from neuralmech.config import LoggerConfig
from neuralmech.errors import UserError
from neuralmech.loggers import opened
from neuralmech.loggers.feed import Feed
from neuralmech.loggers.means import SiteMeans
from neuralmech.record import open_record
from neuralmech.training.loop import resume, train

PARTS = {
    "model": {"name": "mlp", "width": 6, "depth": 2, "norm": "batch"},
    "optim": {"lr": 0.1, "weight_decay": 0.01},
    "track": {"block": 7},
}
STEPS = [0, 10, 20, 30]


def logged(tmp_path, name):
    folder = tmp_path / "run"
    folder.mkdir()
    train(config(**PARTS, logger={"name": name, "every": 10}), folder)
    with open_record(folder) as record:
        charges = record.charges("scale")
        site = charges.index["site"].iloc[0]
        here = (charges.index["site"] == site).to_numpy()
        value, drive = charges.value[:][:, here], charges.drive_update[:][:, here]
        decayed, driven = 2 * 0.1 * 0.01 * value.sum(axis=1), 0.1**2 * drive.sum(axis=1)
        wanted = {
            "loss": record.column("loss"),
            "gradient_norm": record.norms().total(),
            "gradient/classifier.weight": record.norms().to_pandas()["classifier.weight"].to_numpy(),
            f"charge/scale/{site}": value.mean(axis=1),
            f"effective_lr/{site}": 0.1 / value.mean(axis=1),
            f"drive_share/scale/{site}": driven / (decayed + driven),
        }
    return folder, {key: column[STEPS] for key, column in wanted.items()}


def test_csv(tmp_path):
    folder, wanted = logged(tmp_path, "csv")
    rows = list(csv.DictReader((folder / "logged.csv").read_text().splitlines()))
    for name, values in wanted.items():
        mine = [row for row in rows if row["name"] == name]
        assert [int(row["step"]) for row in mine] == STEPS
        np.testing.assert_allclose([float(row["value"]) for row in mine], values, rtol=1e-12)
    assert any(row["name"].startswith("charge/translation/") for row in rows)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, wanted = logged(tmp_path, "tensorboard")
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    for name, values in wanted.items():
        scalars = found.Scalars(name)
        assert [s.step for s in scalars] == STEPS
        np.testing.assert_allclose([s.value for s in scalars], values, rtol=1e-6)


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    seen = []
    made = wandb.init

    def init(**options):
        assert options["mode"] == "offline"
        run = made(**options)
        log = run.log
        monkeypatch.setattr(run, "log", lambda values, step: (seen.append((step, values)), log(values, step=step)))
        return run

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "init", init)
    folder, wanted = logged(tmp_path, "wandb")
    assert [step for step, _ in seen] == STEPS
    for name, values in wanted.items():
        np.testing.assert_allclose([of[name] for _, of in seen], values, rtol=1e-12)
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))


def test_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder, wanted = logged(tmp_path, "mlflow")
    client = MlflowClient(tracking_uri=(folder / "mlruns").resolve().as_uri())
    experiment = client.get_experiment_by_name("neuralmech")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for name, values in wanted.items():
        history = client.get_metric_history(run.info.run_id, name)
        assert [m.step for m in history] == STEPS
        np.testing.assert_allclose([m.value for m in history], values, rtol=1e-12)


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setattr("neuralmech.loggers.names.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^logger=wandb needs wandb; pip install 'neuralmech\[wandb\]', or use"):
        LoggerConfig("wandb").check()
    LoggerConfig("csv").check()
    with pytest.raises(UserError, match=r"logger=wandbe is unknown .did you mean wandb"):
        LoggerConfig("wandbe").check()
    with pytest.raises(UserError, match=r"logger.every=0 is too small"):
        LoggerConfig(every=0).check()


def test_a_tracker_that_cannot_be_opened_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"logger=csv cannot be opened .*; use logger=none"):
        opened("csv", tmp_path / "nowhere", {}, {})
    assert opened("none", tmp_path, {}, {}) is None


class Failing:
    def write(self, step, values):
        raise ValueError("no room")

    def close(self):
        raise AssertionError


class Slow:
    def __init__(self):
        self.steps = []

    def write(self, step, values):
        time.sleep(0.05)
        self.steps.append(step)

    def close(self):
        self.steps.append("closed")


def steps(count):
    ones = dict.fromkeys(("loss", "lr", "gradient_norm"), np.ones(count))
    return {"step": np.arange(count), **ones, "weight_decay": np.zeros(count)}


def test_a_tracker_that_fails_does_not_end_the_run(capsys):
    with Feed(Failing(), "mine", SiteMeans({}, 1)) as feed:
        feed.hear(steps(3), {})
    assert capsys.readouterr().err == "neuralmech: logger=mine failed (no room); the run goes on without it\n"


def test_nobody_waits_for_a_slow_tracker_before_the_end():
    slow = Slow()
    with Feed(slow, "mine", SiteMeans({}, 2)) as feed:
        start = time.monotonic()
        for _ in range(3):
            feed.hear(steps(3), {})
        assert time.monotonic() - start < 0.05
    assert slow.steps == [0, 2, 1, 0, 2, "closed"]


def test_a_run_is_resumed_with_another_tracker_and_is_the_same(tmp_path):
    plain, told = tmp_path / "plain", tmp_path / "told"
    for folder in (plain, told):
        folder.mkdir()
        train(config(**PARTS), folder)
    resume(plain, {"train.steps": 60})
    resume(told, {"train.steps": 60, "logger.name": "csv", "logger.every": 5})
    assert "\n40,loss," in (told / "logged.csv").read_text()
    with open_record(plain) as one, open_record(told) as other:
        for family in one.families:
            np.testing.assert_array_equal(one.charges(family).value[:], other.charges(family).value[:])


def test_an_attached_training_is_logged(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(16, 4), torch.randint(3, (16,))
    with neuralmech.attach(model, optimizer, tmp_path, x, logger="csv", logger_every=2) as tracking:
        for _ in range(5):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            tracking.log(loss=loss)
    rows = list(csv.DictReader((tmp_path / "logged.csv").read_text().splitlines()))
    assert [row["step"] for row in rows if row["name"] == "loss"] == ["0", "2", "4"]
    with pytest.raises(UserError, match=r"logger=cvs is unknown .did you mean csv"):
        neuralmech.attach(model, optimizer, tmp_path / "other", x, logger="cvs")
