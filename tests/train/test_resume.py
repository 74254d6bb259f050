"""A run that was stopped and resumed is the run that was never stopped, bit for bit."""

import random
import re

import numpy as np
import pytest

from conftest import config
from neuralmech.config import resolve, to_yaml
from neuralmech.errors import RunError, UserError
from neuralmech.record import RecordWriter, open_record
from neuralmech.record.schema import Position, Rows
from neuralmech.training import loop
from neuralmech.training.checkpoint import checkpoints, path_of
from neuralmech.training.loop import resume, train
from neuralmech.training.recorded import changed_config
from train_twins import assert_twins, contents, stopped

pytestmark = pytest.mark.usefixtures("found_once")

OPTIONS = {
    "optim": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "schedule": {"name": "cosine", "warmup": 5}},
    "train": {"steps": 60, "eval_every": 9, "checkpoint": {"every": 10, "minutes": 0, "keep": 2}},
    "model": {"name": "mlp", "width": 6, "depth": 2, "norm": "batch"},
    "track": {"block": 7},
}
DROPOUT = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
"""


@pytest.mark.parametrize("step", [3, 10, 25, 59])
@pytest.mark.parametrize("every", [1, 3])
def test_resumed_equals_uninterrupted(finished, tmp_path, monkeypatch, step, every):
    options = {**OPTIONS, "track": {"block": 7, "every": every}}
    folder = stopped(tmp_path, monkeypatch, step, options)
    resume(folder, {})
    assert_twins(folder, finished(**options), 60)


def test_dropout_goes_on_with_the_same_random_numbers(finished, tmp_path, monkeypatch):
    (tmp_path / "dropout_net.py").write_text(DROPOUT)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = {"name": "_target_", "target": "dropout_net.net", "arguments": {}}
    options = {**OPTIONS, "model": model}
    folder = stopped(tmp_path, monkeypatch, 34, options)
    with pytest.raises(UserError, match=r"must not name \(_target_='dropout_net.net'\); if that is yours, give"):
        resume(folder, {})
    with pytest.raises(UserError, match=r"give the same model._target_ \(the run has 'dropout_net.net'\)"):
        resume(folder, {"model._target_": "os.getcwd"})
    resume(folder, {"model": "custom", "model._target_": "dropout_net.net"})
    assert_twins(folder, finished(**options), 60)


def test_numpys_and_pythons_random_numbers_go_on_too(run, tmp_path, monkeypatch):
    """Gaussians come in pairs, of which one may wait; `track.noise` draws nothing besides."""
    step = loop.take_step

    def drawing(run, x, y):
        step(run, x * (1 + 0.1 * random.gauss(0, 1) + 0.1 * np.random.standard_normal()), y)  # noqa: NPY002

    monkeypatch.setattr(loop, "take_step", drawing)
    for track in ({"block": 7}, {"block": 7, "noise": 5}):
        options = {**OPTIONS, "track": track}
        folder = stopped(tmp_path, monkeypatch, 37, options)
        resume(folder, {})
        whole = run(**options)
        assert_twins(folder, whole, 60)
        folder.rename(tmp_path / f"done{len(track)}")
    with open_record(tmp_path / "done1") as quiet, open_record(whole) as noisy:
        assert np.array_equal(quiet.steps()["loss"], noisy.steps()["loss"])
        assert np.isfinite(quiet.steps()["loss"]).all()


def test_ctrl_c_in_the_middle_of_a_step_can_be_resumed(finished, tmp_path, monkeypatch):
    folder = stopped(tmp_path, monkeypatch, 33, OPTIONS, KeyboardInterrupt)
    resume(folder, {})
    assert_twins(folder, finished(**OPTIONS), 60)


def test_a_config_that_grew_is_recorded_whole(run):
    folder = run(**OPTIONS)
    for steps, minutes in ((100_000, 12.345678), (100_001, 1.5)):  # longer text, then shorter
        config = changed_config(folder, {"train.steps": steps, "train.checkpoint.minutes": minutes})
        with RecordWriter.resume(folder, Position(60, 7, Rows({}, {})), {"config": to_yaml(config)}):
            pass
        with open_record(folder) as record:
            assert resolve(record.config) == config


def test_a_longer_run_is_the_run_that_was_longer_from_the_start(run, finished):
    """With a schedule that does not depend on the length."""
    short = {**OPTIONS, "optim": {"lr": 0.1, "momentum": 0.5}}
    long = {**short, "train": {**OPTIONS["train"], "steps": 100}}
    folder = run(**short)
    resume(folder, {"train.steps": 100})
    assert_twins(folder, finished(**long), 100)
    with open_record(folder) as r:
        assert r.config["train"]["steps"] == 100


def test_resuming_a_finished_run_changes_nothing(run):
    folder = run(**OPTIONS)
    before = contents(folder)
    resume(folder, {})
    after = contents(folder)
    assert all(np.array_equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim.lr": 0.2}, r"optim.lr \(the run has 0.1\)"),
        ({"optim.lr": 0.2, "seed": 5}, r"optim.lr .*, seed "),
        ({"model": "convnet"}, r"model "),
        ({"model.width": 8}, r"model.width \(the run has 6\)"),
        ({"optim.schedule.warmup": 1}, "optim.schedule.warmup"),
        ({"train.eval_every": 1}, "train.eval_every"),
        ({"train.steps": 50}, "train.steps=50 is less than the run's 60"),
        ({"optim.lrr": 1}, "optim.lrr is no option; did you mean optim.lr"),
        ({"colour": "red"}, "colour is no option"),
    ],
)
def test_changes_that_matter_are_refused_by_name(finished, changes, message):
    folder = finished(**OPTIONS)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=message):
        resume(folder, changes)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_what_does_not_matter_may_differ(run):
    changes = {"device": "cpu", "train.checkpoint.keep": None, "train.checkpoint.every": 5, "model": "mlp"}
    folder = run(**OPTIONS)
    resume(folder, {**changes, "train.steps": 80})
    assert {65, 70, 75, 80} <= set(checkpoints(folder / "checkpoints"))


def test_checkpoints_are_kept_as_asked(run, finished):
    assert checkpoints(finished(**OPTIONS) / "checkpoints") == [0, 50, 60]
    every = {**OPTIONS["train"], "checkpoint": {"every": 25, "minutes": 0, "keep": None}}
    assert checkpoints(run(**{**OPTIONS, "train": every}) / "checkpoints") == [0, 25, 50, 60]
    minutes = {**OPTIONS["train"], "checkpoint": {"minutes": 1e-9, "keep": 3}}
    assert checkpoints(run(**{**OPTIONS, "train": minutes}) / "checkpoints") == [0, 58, 59, 60]


def test_the_record_is_on_disk_before_the_checkpoint_that_refers_to_it(tmp_path, monkeypatch):
    from neuralmech.training import run as saving

    real, seen = saving.save_checkpoint, []

    def look(folder, model, step, state):
        with open_record(tmp_path) as r:
            seen.append((state["record"]["rows"], r.rows))
        return real(folder, model, step, state)

    monkeypatch.setattr(saving, "save_checkpoint", look)
    train(config(**OPTIONS), tmp_path)
    assert len(seen) == 7
    assert all(needed <= there for needed, there in seen)
    assert seen[-1][0] == 56  # whole chunks; the other four rows are in the checkpoint


def damage(path, where=0.5, length=16):
    data = bytearray(path.read_bytes())
    start = int(len(data) * where)
    data[start : start + length] = bytes(b ^ 0xFF for b in data[start : start + length])
    path.write_bytes(data)


def shorten(path):
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize("spoil", [damage, shorten, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(finished, tmp_path, monkeypatch, capsys, spoil):
    folder = stopped(tmp_path, monkeypatch, 33, OPTIONS)
    spoil(folder / "checkpoints/step-00000030.pt")
    resume(folder, {})
    said = capsys.readouterr().err
    assert re.search(r"step-00000030.pt cannot be loaded \(.*\); trying the checkpoint before it$", said.strip())
    assert_twins(folder, finished(**OPTIONS), 60)


def test_without_any_checkpoint_a_run_starts_again(finished, tmp_path, monkeypatch, capsys):
    folder = stopped(tmp_path, monkeypatch, 33, OPTIONS)
    for path in (folder / "checkpoints").glob("*.pt"):
        shorten(path)
    resume(folder, {})
    assert "starting again from step 0" in capsys.readouterr().err
    assert_twins(folder, finished(**OPTIONS), 60)


def test_a_checkpoint_of_another_run_is_refused(run, tmp_path, monkeypatch):
    folder = stopped(tmp_path, monkeypatch, 33, OPTIONS)
    keep = {**OPTIONS["train"], "checkpoint": {"every": 10, "minutes": 0, "keep": None}}
    other = run(**{**OPTIONS, "train": keep})
    path_of(other / "checkpoints", 30).replace(path_of(folder / "checkpoints", 30))
    with pytest.raises(UserError, match=r"step-00000030.pt is not of this run \(another run wrote it\); remove it"):
        resume(folder, {})


def test_a_damaged_record_is_named_and_the_checkpoint_before_the_damage_is_used(
    finished, tmp_path, monkeypatch, capsys, flip
):
    options = {**OPTIONS, "train": {**OPTIONS["train"], "checkpoint": {"every": 10, "minutes": 0, "keep": None}}}
    folder = stopped(tmp_path, monkeypatch, 55, options)
    flip(folder / "record.h5", "charges/rescale/value", 28)
    with open_record(folder) as r, pytest.raises(ValueError, match=r"record.h5 is damaged in .*rescale/value"):
        r.charges("rescale").value[:]
    resume(folder, {})
    assert "record.h5 is damaged after row 28" in capsys.readouterr().err
    assert_twins(folder, finished(**options), 60)


def test_not_finite_may_go_on(run, tmp_path):
    from neuralmech.compare.folder import analyze_folder

    options = {"optim": {"lr": 1e8}, "train": {"steps": 50, "on_nan": "continue", "eval_every": 0}}
    folder = run(**options)
    with open_record(folder) as r:
        assert (r.rows, r.status) == (50, "complete")
        finite = r.finite_rows()
        assert not np.isfinite(r.steps()["loss"]).all()
    with pytest.raises(RunError):
        train(config(**{**options, "train": {"steps": 50}}), tmp_path)
    with open_record(tmp_path) as r:
        assert finite == r.rows
    found = analyze_folder(folder)
    assert set(found.comparison["steps"]) == {finite}
    assert any(f"not finite after row {finite}" in note for note in found.notes)
    assert np.isfinite(found.comparison["error"]).any()
