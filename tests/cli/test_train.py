"""Training by the command line: runs, what there was before them, resuming, signals, full disks."""

import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from command_line import SMALL, refused, there
from neuralmech.training import loop
from neuralmech.training.process import SAME_SECONDS, locked
from neuralmech.training.rule import LearningRule

pytestmark = pytest.mark.usefixtures("found_once")

TOKENS = [
    "model=transformer", "model.width=8", "model.heads=2", "model.depth=1", "data=tokens", "data.batch_size=8",
    "data.modulus=7", "data.states=5", "data.length=6", "data.size=60", "device=cpu",
]  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        ["data.task=markov"],
        ["data.task=modular", "model.tie=true"],
        ["data.task=markov", "model.norm=rms", "model.activation=swiglu", "model.positions=rotary", "model.kv_heads=1"],
    ],
)
def test_a_transformer_on_tokens(command, tmp_path, more):
    code, out, err = command("train", *TOKENS, *more, "train.steps=20", "train.precision=fp64", "hydra.run.dir=run")
    assert (code, err) == (0, "")
    assert "20 steps recorded; held out: loss" in out
    code, out, err = command("verify", "run", "verify.sample=1")
    assert (code, err) == (0, "")
    assert "NO" not in out
    assert command("analyze", "run", "figures=false")[0] == 0
    table = pd.read_csv(tmp_path / "run/analysis/comparison.csv")
    exact = table[table["law"] == "discrete_broken"]
    assert {"translation", "rescale"} <= set(exact["family"])
    assert exact["error"].max() < 1e-12
    unbroken = table[(table["law"] == "discrete") & (table["family"] == "translation")]  # no norm's eps breaks these
    assert unbroken["error"].max() < 1e-12


@pytest.mark.usefixtures("run")
def test_an_existing_run_is_left_alone(command, tmp_path):
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    code, _, err = command("train", *SMALL, "hydra.run.dir=run", "optim.lr=0.5")
    assert code == 2
    assert "run holds a record already" in err
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_a_refused_run_removes_only_the_folders_it_made(command, tmp_path, monkeypatch):
    (tmp_path / "mine/deep/empty").mkdir(parents=True)
    before = there(tmp_path)
    for folder in ("mine/deep/empty", "mine/deep/new/run", "new/run"):
        refused(command("train", *SMALL, "model.width=-1", f"hydra.run.dir={folder}"), "model.width=-1 is too small")
        assert there(tmp_path) == before

    def busy(path):
        raise OSError(16, "Device or resource busy", str(path))

    monkeypatch.setattr(Path, "rmdir", busy)
    refused(command("train", *SMALL, "model.width=-1", "hydra.run.dir=new/run"), "model.width=-1 is too small")


def test_who_comes_second_leaves_the_files_of_the_first_alone(command, tmp_path):
    """Before there is a record, and after."""
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra/overrides.yaml").write_text("- seed=1\n")
    with locked(run):
        before = there(run)
        refused(command("train", *SMALL, "seed=2", "hydra.run.dir=run"), "run is in use by another process")
        code, *_ = command("train", *SMALL, "seed=2,3", "-m", "hydra.sweep.dir=.", "hydra.sweep.subdir=run")
        assert code == 2
        assert there(run) == before
    assert command("train", *SMALL, "seed=2", "hydra.run.dir=run")[0] == 0
    assert "- seed=2" in (run / ".hydra/overrides.yaml").read_text()
    assert "seed: 2" in (run / ".hydra/config.yaml").read_text()
    before = there(run)
    refused(command("train", *SMALL, "seed=3", "hydra.run.dir=run"), "run holds a record already; .*resume=run")
    assert there(run) == before


@pytest.mark.usefixtures("run")
def test_what_does_not_go_with_resume_is_one_line(command, tmp_path):
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for words, message in [
        (["resume=run", "optim.lr=3", "seed=1"], r"optim.lr .the run has 0.1., seed .the run has 0."),
        (["resume=run", "train.steps=10"], "train.steps=10 is less than the run's 30; it may only grow"),
        (["resume=nowhere"], "nowhere holds no record"),
        (["resume=run", "--multirun"], "--multirun does not go with resume="),
        (["resume=run", "hydra.run.dir=other"], "hydra.run.dir does not go with resume="),
        (["resume=run", "experiment=first_light"], "experiment does not go with resume="),
        (["resume=run", "model=convnet", "optim=adam"], r"model .the run has mlp., optim .the run has sgd."),
        (["resume=run", "train=5"], "train=5: train is a group of options; set one of them, such as train.steps="),
        (["resume=run", "seed=1,2"], "seed=1,2 names several values, which does not go with resume="),
        (["resume=run,other"], "resume=run,other names several values"),
        (["resume=run", "optim={lr:"], "no viable alternative|mismatched|extraneous"),
    ]:
        refused(command("train", *words), message)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    code, out, err = command("train", "resume=run", "train.steps=40", "train.checkpoint.keep=null")
    assert (code, err) == (0, "")
    assert "40 steps recorded" in out
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_a_signal_before_the_first_step_leaves_nothing(command, tmp_path, monkeypatch, number, word):
    monkeypatch.setattr(loop, "begin", lambda *_: os.kill(os.getpid(), number))
    assert command("train", *SMALL, "hydra.run.dir=new/run") == (128 + number, "", f"neuralmech: {word}\n")
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_does_not_wait_and_says_how_to_go_on(command, monkeypatch):
    real = LearningRule.row

    def press(optim, step, *rest):
        if step == 20:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.2 * SAME_SECONDS)
            os.kill(os.getpid(), signal.SIGINT)
        return real(optim, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(LearningRule, "row", press)
        code, _, err = command("train", *SMALL, "hydra.run.dir=run")
    wanted = "neuralmech: interrupted; the record holds 20 steps; neuralmech train resume=run continues\n"
    assert (code, err) == (130, wanted)
    assert command("train", "resume=run")[0] == 0


def test_a_full_disk_names_the_file(command, monkeypatch):
    from omegaconf import OmegaConf

    real = Path.open

    def full(path, *arguments, **options):
        if path.name == "config.tmp":
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **options)

    def no_room(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        code, out, err = command("train", *SMALL, "hydra.run.dir=run")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "run/.hydra/config.yaml cannot be used (No space left on device)" in err
    with monkeypatch.context() as patch:
        patch.setattr(OmegaConf, "save", no_room)  # of Hydra's own multirun.yaml
        code, _, err = command("train", *SMALL, "-m", "seed=0,1", "hydra.sweep.dir=sweep")
    assert (code, err) == (
        1, "neuralmech: sweep cannot be used (No space left on device); choose another path or make room\n"
    )  # fmt: skip
