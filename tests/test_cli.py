"""The command line as a user meets it: output, files, exit codes, one line per error."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from neuralmech.cli import main
from neuralmech.record import open_record
from neuralmech.train import loop
from neuralmech.train.process import SAME_SECONDS, locked

SMALL = ["model=mlp", "model.width=6", "data.batch_size=16", "train.steps=30", "device=cpu"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command line in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        from hydra.core.global_hydra import GlobalHydra

        GlobalHydra.instance().clear()
        code = 0
        try:
            main(list(words))
        except SystemExit as stop:
            code = stop.code
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def refused(answer, message):
    """Wrong usage: nothing but one line that says what is wrong."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert err.startswith("neuralmech: ")
    assert re.search(message, err), err


def test_train_then_analyze(command, tmp_path):
    code, out, err = command("train", *SMALL, "hydra.run.dir=run")
    assert (code, err) == (0, "")
    assert "30 steps recorded" in out
    assert "Next: neuralmech analyze run" in out
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"record.h5", "checkpoints", ".hydra"}
    code, out, err = command("analyze", "run", "lines=3")
    assert (code, err) == (0, "")
    assert "discrete" in out
    assert "features.0 -> features.2" in out
    table = pd.read_csv(tmp_path / "run/analysis/comparison.csv")
    assert list(table.columns) == [
        "family", "site", "law", "charges", "steps", "error", "unexplained", "max_error", "final_error",
        "q10", "median", "q90", "reason",
    ]  # fmt: skip
    assert set(table["law"]) == {
        "gradient_flow", "weight_decay", "modified_loss", "first_order_flow", "modified_flow", "stochastic",
        "noether", "discrete", "discrete_broken",
    }  # fmt: skip
    files = {p.name for p in (tmp_path / "run/analysis").iterdir()}
    tables = {f"{name}.{suffix}" for name in ("comparison", "budget") for suffix in ("csv", "md", "tex")}
    figures = {
        f"{name}.{suffix}" for name in ("translation", "rescale", "parameters", "budget") for suffix in ("png", "pdf")
    }
    assert files == tables | figures | {"runs.csv", "report.html", ".made"}


def test_a_sweep_is_one_table(command, tmp_path):
    code, *_ = command("train", *SMALL, "--multirun", "optim.lr=0.01,0.1", "seed=0,1", "hydra.sweep.dir=sweep")
    assert code == 0
    code, out, _ = command("analyze", "sweep", "figures=false")
    assert code == 0
    assert "optim.lr = 0.01, seed = 1" in out
    table = pd.read_csv(tmp_path / "sweep/analysis/comparison.csv")
    assert {tuple(row) for row in table[["optim.lr", "seed"]].to_numpy()} == {(0.01, 0), (0.01, 1), (0.1, 0), (0.1, 1)}


def test_a_failed_job_does_not_end_the_sweep(command, tmp_path):
    code, _, err = command("train", *SMALL, "--multirun", "optim.lr=-1,0.1", "hydra.sweep.dir=sweep")
    assert code == 2
    assert "optim.lr=-1.0 must be a positive number" in err
    assert (tmp_path / "sweep/1/record.h5").exists()
    code, out, _ = command("analyze", "sweep", "figures=false")
    assert code == 0
    assert "job 0 failed: optim.lr=-1.0 must be a positive number" in out
    runs = pd.read_csv(tmp_path / "sweep/analysis/runs.csv").set_index("job")
    assert runs["status"].to_dict() == {0: "failed", 1: "complete"}
    assert runs["optim.lr"].to_dict() == {0: -1, 1: 0.1}
    assert "must be a positive number" in runs.loc[0, "reason"]


def test_symmetries_lists_charges_and_writes_nothing(command, tmp_path):
    code, out, _ = command("symmetries", "model.norm=batch", "model.activation=tanh")
    assert code == 0
    for text in ("classifier.weight", "scale", "barrier: tanh", "of the parameters are in at least one charge"):
        assert text in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=0", "optim.lr=0.0 must be a positive number"),
        ("optim.lr=fast", "optim.lr: .*fast.* could not be converted to Float"),
        ("optim.momentum=1", r"optim.momentum=1.0 must lie in \[0, 1\)"),
        ("optim.weight_decay=-1", "optim.weight_decay=-1.0 must not be negative"),
        ("optim.nesterov=true", "optim.nesterov=true needs optim.momentum > 0"),
        ("model=mpl", "model=mpl is unknown .did you mean mlp.*choose one of convnet, custom, mlp, torchvision"),
        ("data=mnits", "data=mnits is unknown .did you mean mnist.*choose one of cifar10"),
        ("data.batch_size=5000", "data.batch_size=5000 is larger than the training data .1438 samples"),
        ("model.widht=3", "model.widht is no option; did you mean width"),
        ("+model.widht=3", "model.widht is no option; did you mean width"),
        ("colour=red", "colour is no option"),
        ("data=tokens", "model=convnet needs real numbers, data has tokens; use model=transformer"),
        ("model=transformer", r"model=transformer needs tokens, data has real numbers .1, 8, 8.; use data=tokens"),
        ("model.norm=bach", "model.norm=bach is unknown .did you mean batch"),
        ("device=cuda:99", "device=cuda:99 asks for a GPU that is not there; use device=cpu"),
        ("device=tpu", "device=tpu is unknown"),
        ("train.steps=0", "train.steps=0 is too small"),
        ("train.epochs=3", "give one of them"),
        ("device=3", "device=3 is unknown"),
        ("seed=99999999999999999999", "seed=99999999999999999999 must lie in"),
        ("optim.schedule=cosine", "set optim.schedule.name=cosine"),
        ("track.families=scale", r"must be a list, such as \[scale\]"),
        ("track.families=[scale]", "track.families=scale: this model has no such charges; it has translation, rescale"),
        ("data.test_fraction=0.0001", "holds out 0 of 1797 samples"),
        ("track.families=[scal]", "track.families=scal is unknown"),
        ("optim.schedule.name=cos", "did you mean cosine"),
        ("optim={lr:", "no viable alternative|mismatched|extraneous"),
        ("--frobnicate", "unrecognized arguments: --frobnicate"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(command, tmp_path, override, message):
    refused(command("train", override), message)
    assert not list(tmp_path.iterdir())


def test_bad_run_folders_are_one_line(command, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/record.h5").write_text("hello")
    command("train", *SMALL, "hydra.run.dir=run")
    (tmp_path / "run/analysis").write_text("in the way")
    for words, message in [
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "empty holds no record"),
        (["text"], "text/record.h5 is not a readable HDF5 file"),
        ([], "analyze needs a run folder"),
        (["run"], "run/analysis cannot be written"),
        (["run", "laws=[discreet]"], "laws=discreet is unknown .did you mean discrete"),
        (["run", "lines=0"], "lines=0 is too small"),
        (["run", "lines=abc"], "lines=abc must be a whole number"),
        (["run", "laws=[]"], "leaves nothing to compare"),
        (["run", "figures=maybe"], "figures=maybe must be true or false"),
        (["run", "nowhere"], "nowhere does not exist"),
        (["run", "colour=red"], "colour is no option"),
    ]:
        refused(command("analyze", *words), message)


def test_a_newer_record_is_refused(command, tmp_path):
    command("train", *SMALL, "hydra.run.dir=run")
    with h5py.File(tmp_path / "run/record.h5", "a") as f:
        f.attrs["schema_version"] = 99
    code, _, err = command("analyze", "run")
    assert code == 2
    assert "schema version 99" in err
    assert "upgrade neuralmech" in err


def test_help_and_version(command):
    assert command("--help")[1].startswith("neuralmech: predict")
    assert command()[0] == 0
    assert re.fullmatch(r"neuralmech \d+\.\d+\.\d+\n", command("--version")[1])
    code, _, err = command("trian")
    assert code == 2
    assert "did you mean train" in err
    for name in ("train", "analyze", "symmetries", "verify"):
        assert f"neuralmech {name}" in command(name, "--help")[1]
    assert "weight_decay: 0.0" in command("train", "--cfg", "job")[1]


def test_a_users_own_config_folder(command, tmp_path):
    (tmp_path / "mine/model").mkdir(parents=True)
    (tmp_path / "mine/model/tiny.yaml").write_text("name: mlp\nwidth: 2\ndepth: 1\n")
    code, out, _ = command("symmetries", "--config-dir", str(tmp_path / "mine"), "model=tiny")
    assert code == 0
    assert re.search(r"features.0 -> classifier *│ +2 ", out)


def test_completion_offers_commands_then_keys(command, monkeypatch):
    def complete(line):
        monkeypatch.setenv("COMP_LINE", line)
        return command("-sc", "query=bash")[1].split()

    assert complete("neuralmech tr") == ["train"]
    assert complete("neuralmech ") == ["train", "analyze", "symmetries", "verify"]
    models = ("convnet", "custom", "mlp", "torchvision", "transformer")
    assert complete("neuralmech train model=") == [f"model={name}" for name in models]
    assert "optim.lr=" in complete("neuralmech train optim.l")


def test_python_m():
    done = subprocess.run([sys.executable, "-m", "neuralmech", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("neuralmech ")


def test_an_existing_run_is_left_alone(command, tmp_path):
    command("train", *SMALL, "hydra.run.dir=run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    code, _, err = command("train", *SMALL, "hydra.run.dir=run", "optim.lr=0.5")
    assert code == 2
    assert "run holds a record already" in err
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_a_sweep_over_lists_is_analysed(command):
    command("train", *SMALL, "-m", "track.families=[rescale],[translation]", "hydra.sweep.dir=sweep")
    code, out, _ = command("analyze", "sweep", "figures=false")
    assert code == 0
    assert "track.families = ['rescale']" in out


def test_a_failed_analysis_leaves_nothing_behind(command, tmp_path):
    command("train", *SMALL, "hydra.run.dir=run")
    (tmp_path / "run/analysis/rescale.png").mkdir(parents=True)
    code, _, err = command("analyze", "run")
    assert code == 2
    assert "rescale.png is in the way" in err
    assert [p.name for p in (tmp_path / "run/analysis").iterdir()] == ["rescale.png"]
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"record.h5", "checkpoints", ".hydra", "analysis"}


def test_a_path_that_cannot_be_made_is_one_line(command, tmp_path):
    (tmp_path / "file").write_text("")
    refused(command("train", *SMALL, "hydra.run.dir=file/run"), "file/run cannot be used")


def test_memory_that_is_short_is_one_line(command, tmp_path, monkeypatch):
    command("train", *SMALL, "hydra.run.dir=run")
    monkeypatch.setattr("neuralmech.compare.folder.analyze_folder", lambda *_: np.zeros(1 << 50))
    code, out, err = command("analyze", "run")
    assert (code, out) == (1, "")
    assert re.fullmatch("neuralmech: memory is short .*8.00 PiB.*; free some, or take a smaller model.*\n", err)


def test_flags_of_analyze_are_not_runs(command, tmp_path):
    assert "figures: true" in command("analyze", "--cfg", "job")[1]
    command("train", *SMALL, "hydra.run.dir=run")
    (tmp_path / "mine").mkdir()
    code, out, _ = command("analyze", "run", "--config-dir", str(tmp_path / "mine"), "figures=false")
    assert code == 0
    assert "comparison.csv" in out


def test_verify_fresh_and_trained(command):
    code, out, err = command("verify", "model=mlp", "model.norm=batch")
    assert (code, err) == (0, "")
    assert "a norm's eps" in out
    command("train", *SMALL, "hydra.run.dir=run")
    code, out, err = command("verify", "run", "checkpoint=30")
    assert (code, err) == (0, "")
    assert "NO" not in out
    code, out, _ = command("verify", "model=mlp", "model.norm=batch", "train.precision=bf16", "device=cpu")
    assert code == 0
    assert "broken by bfloat16 autocast" in out
    assert "broken by running statistics" in out
    code, _, err = command("verify", "run", "checkpoint=7")
    assert code == 2
    assert "checkpoints are at steps 0, 30" in err
    assert command("verify", "nowhere")[0] == 2


def test_what_verify_would_ignore_is_one_line(command):
    command("train", *SMALL, "hydra.run.dir=run")
    for words, message in [
        (["run", "checkpoint=abc"], "checkpoint=abc must be the step of a checkpoint"),
        (["run", "checkpoint=true"], "checkpoint=True must be the step of a checkpoint"),
        (["model=mlp", "checkpoint=3"], "checkpoint= is a step of a run; name it too"),
        (["run", "model.width=3"], "model.width does not go with a run"),
        (["run", "model=mlp"], "model does not go with a run"),
        (["run", "+model.widht=3"], "model.widht does not go with a run"),
    ]:
        refused(command("verify", *words), message)
    assert command("verify", "run", "checkpoint=null", "verify.sample=0", "conditions=exact")[0] == 0


BROKEN = """
import torch
from torch import nn

class Init(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.table = torch.zeros(width) @ torch.zeros(4)

class Types(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = 3 + "3"

class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 10)

    def forward(self, x):
        if x.sum() > 0:
            return self.a(x.flatten(1))
        return self.a(-x.flatten(1))
"""


def test_errors_in_a_users_own_model_are_one_line_with_the_place(command, tmp_path):
    (tmp_path / "broken_net.py").write_text(BROKEN)
    for verb in ("symmetries", "verify", "train"):
        for name, message in [
            ("Init", r"model._target_=broken_net.Init raises RuntimeError: .*\[3\].*at broken_net.py:8; mend it"),
            ("Types", r"model._target_=broken_net.Types raises TypeError: .*at broken_net.py:13; mend it"),
            ("Branch", "Branch cannot be traced: what it computes depends on the data at broken_net.py:21; .*Symm"),
        ]:
            words = ["model=custom", f"model._target_=broken_net.{name}", "device=cpu"]
            refused(command(verb, *words), message)
    assert [p.name for p in tmp_path.iterdir() if p.name != "__pycache__"] == ["broken_net.py"]


def test_verify_measures_the_conditions_asked_for(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = ["verify", "model=mlp", "model.norm=batch", "model.width=8", "device=cpu", "verify.sample=1"]
    code, out, err = command(*words, "conditions=[own,eval,tf32,bf16,fp16]")
    assert (code, err) == (0, "")
    assert max(len(line) for line in out.splitlines() if "─" in line) <= 80
    heads = [line.split() for line in out.splitlines() if line.startswith(" site")]
    assert heads == [
        ["site", "n", "loss", "gradient", "Hessian", "holds"], ["site", "n", "own", "eval", "tf32", "bf16", "fp16"]
    ]  # fmt: skip
    for cause in ("TF32 products (emulated)", "float16 autocast", "bfloat16 autocast", "running statistics"):
        assert cause in out
    code, out, _ = command(*words, "conditions=exact")
    assert code == 0
    assert "norms' eps removed." in out
    for words, message in [
        (["conditions=[own,evl]"], "conditions=evl is unknown (did you mean eval?); choose one of exact, float64"),
        (["conditions=3"], "conditions=3 must be a list of names, such as conditions=[own,eval]"),
        (["verify.sample=few"], "verify.sample=few must be a whole number"),
        (["nowhere", "conditions=[fp8]"], "conditions=fp8 is unknown"),
    ]:
        code, out, err = command("verify", *words)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert message in err


OWN = """
from torch import nn

class MyNet(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, x):
        return self.net(x)
"""


def test_a_users_own_model(command, tmp_path, monkeypatch):
    (tmp_path / "my_own_net.py").write_text(OWN)
    own = ["model=custom", "model._target_=my_own_net.MyNet"]
    code, out, _ = command("symmetries", "--json", *own, "+model.width=7")
    assert code == 0
    assert json.loads(out)["sites"]["rescale"] == {"net.1 -> net.3": 7}
    code, *_ = command("train", *own, "+model.width=7", "train.steps=20", "device=cpu", "hydra.run.dir=run")
    assert code == 0
    assert command("analyze", "run")[0] == 0
    for words, message in [
        (["verify", "run"], "code of your own, which a record must not name"),
        (["symmetries", *own], "missing 1 required positional argument: 'width'"),
        (["symmetries", "model=custom"], "model._target_ is missing"),
        (["symmetries", "model=custom", "model._target_=my_own_net.MyNot"], "names nothing that can be called"),
    ]:
        refused(command(*words), message)


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


def test_what_does_not_go_with_resume_is_one_line(command, tmp_path):
    command("train", *SMALL, "hydra.run.dir=run")
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


def test_code_in_a_record_runs_only_if_the_user_names_it(command, tmp_path):
    (tmp_path / "bomb.py").write_text("open('ran', 'w').close()\n" + OWN)
    own = ["model=custom", "model._target_=bomb.MyNet", "+model.width=7"]
    assert command("train", *own, "train.steps=20", "device=cpu", "hydra.run.dir=run")[0] == 0
    (tmp_path / "ran").unlink()
    del sys.modules["bomb"]
    for words in (["verify", "run"], ["train", "resume=run"], ["analyze", "run", "figures=false"]):
        command(*words)
        assert not (tmp_path / "ran").exists()
    with h5py.File(tmp_path / "run/record.h5", "a") as f:
        f.attrs["config"] = "model:\n  _target_: bomb.MyNet\n  name: mlp\n"
    for words in (["verify", "run"], ["train", "resume=run"], ["verify", "run", *own[:2]]):
        code, _, err = command(*words)
        assert (code, "is no plain value" in err) == (2, True)
        assert not (tmp_path / "ran").exists()


def test_a_users_own_model_is_verified_and_resumed_when_named(command, tmp_path):
    (tmp_path / "named_net.py").write_text(OWN)
    own = ["model=custom", "model._target_=named_net.MyNet"]
    command("train", *own, "+model.width=7", "train.steps=20", "device=cpu", "hydra.run.dir=run")
    for words in ([], ["+model.width=8"], ["+model.width=7", "+model.depth=1"]):
        for start in (["verify", "run"], ["train", "resume=run"]):
            refused(
                command(*start, *own, *words), r"its model is code, of which you must give the same model\.(width|dep)"
            )
    own.append("+model.width=7")
    assert command("verify", "run", *own)[0] == 0
    code, out, _ = command("train", "resume=run", *own, "train.steps=30")
    assert (code, "30 steps recorded" in out) == (0, True)


def test_a_records_own_arguments_are_shown_and_never_passed(command, tmp_path):
    command("train", *SMALL, "hydra.run.dir=run")
    with h5py.File(tmp_path / "run/record.h5", "a") as f:
        start = "model: {name: _target_, target: os.system, arguments: {command: "
        f.attrs["config"] = start + '"touch ran \\e[2J' + "x" * 500 + '"}}\n'
    code = ["model=custom", "model._target_=os.system"]
    for start in (["verify", "run"], ["train", "resume=run"]):
        _, _, err = answer = command(*start)
        refused(answer, r"_target_='os.system', command='touch ran ")
        assert "\x1b" not in err
        assert "characters more" in err
        refused(command(*start, *code), r"give the same model.command \(the run has 'touch ran ")
        refused(command(*start, *code, "+model.command=true"), r"give the same model.command")
    refused(
        command("verify", "run", "data._target_=a.b", "data.batch_size=3"), "data.batch_size does not go with a run"
    )
    assert not (tmp_path / "ran").exists()


def there(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


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


def test_a_sweep_that_was_stopped_goes_on_where_it_was(command, tmp_path, monkeypatch):
    words = ["train", *SMALL, "-m", "seed=0,1,2", "hydra.sweep.dir=sweep"]
    real, calls = loop.hyperparameters, []

    def press(*arguments):
        calls.append(arguments)
        if len(calls) == 47:  # in the second job
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "hyperparameters", press)
        code, _, err = command(*words)
    assert code == 143
    assert len(err.splitlines()) == 1
    again = re.search(r"; neuralmech (train .*) goes on with this job and those after it", err)[1]
    code, out, err = command(*shlex.split(again))
    assert (code, err) == (0, "")
    assert out.count("30 steps recorded") == 3
    assert {p.name for p in (tmp_path / "sweep").iterdir()} == {"0", "1", "2", "multirun.yaml"}
    before = there(tmp_path / "sweep")
    code, _, err = command(*words[:-2], "seed=5,6", words[-1])
    assert code == 2
    assert "1 cannot be resumed with another seed (the run has 1); start a new run with another hydra.sweep.dir=" in err
    assert there(tmp_path / "sweep") == before
    for seed in range(3):
        with open_record(tmp_path / f"sweep/{seed}") as record:
            assert (record.rows, record.status, record.config["seed"]) == (30, "complete", seed)


def test_a_sweep_that_is_not_taken_up_leaves_what_was_there(command, tmp_path):
    words, sweep = ["train", *SMALL, "-m", "hydra.sweep.dir=sweep"], tmp_path / "sweep"
    refused(command(*words, "seed=0", "model=mpl,mlp"), "mpl")
    assert not sweep.exists()
    assert command(*words, "seed=0,1")[0] == 0
    before = there(sweep)
    for more in (["model=mpl,mlp"], ["optim.lr=-1,0.1"], ["seed=0,5"], ["seed=0,0", "data.batch_size=0"]):
        assert command(*words, *more)[0] == 2
        assert there(sweep) == before
    with locked(sweep / "1"):
        assert command(*words, "seed=0,1,2")[0] == 2
    assert {p.name for p in sweep.iterdir()} == {"0", "1", "2", "multirun.yaml"}  # the new one is done
    assert command(*words, "seed=0,1,2")[0] == 0
    assert "seed=0,1,2" in (sweep / "multirun.yaml").read_text()
    (sweep / ".multirun.yaml.before").mkdir()
    (sweep / ".multirun.yaml.before/there").touch()
    before = there(sweep)
    refused(command(*words, "seed=0,1,2,3"), r"multirun.yaml.* cannot be used \(Is a directory\)")
    assert there(sweep) == before


def test_a_sweep_whose_jobs_run_elsewhere_is_described_by_its_file(command, tmp_path, monkeypatch):
    """Nothing of them is seen in the process that launched them, and that is no refusal."""
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    file = tmp_path / "sweep/multirun.yaml"
    monkeypatch.setattr(BasicLauncher, "launch", lambda *_, **__: [])
    for seeds in ("seed=0,1", "seed=0,1,2"):
        assert command("train", *SMALL, "-m", seeds, "hydra.sweep.dir=sweep")[::2] == (0, "")
        assert seeds in file.read_text()
        assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_sweeps_file_that_was_left_aside_is_taken_back(command, tmp_path, monkeypatch):
    """The process that set it aside was killed; it comes back if the next one is refused, or stopped at once."""
    words, sweep = ["train", *SMALL, "-m", "hydra.sweep.dir=sweep"], tmp_path / "sweep"
    assert command(*words, "seed=0,1")[0] == 0
    before = there(sweep)
    (sweep / "multirun.yaml").rename(sweep / ".multirun.yaml.before")
    assert command(*words, "seed=0,5")[0] == 2
    assert there(sweep) == before
    (sweep / "multirun.yaml").rename(sweep / ".multirun.yaml.before")
    with monkeypatch.context() as patch:
        patch.setattr("omegaconf.OmegaConf.save", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert command(*words, "seed=0,1,2")[0] == 143
    assert there(sweep) == before
    (sweep / "multirun.yaml").rename(sweep / ".multirun.yaml.before")
    assert command(*words, "seed=0,1,2")[0] == 0
    assert {p.name for p in sweep.iterdir()} == {"0", "1", "2", "multirun.yaml"}
    assert "seed=0,1,2" in (sweep / "multirun.yaml").read_text()


def test_a_sweep_from_somewhere_else_writes_through_no_link(command, tmp_path):
    precious, elsewhere = tmp_path / "precious", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (precious, elsewhere / "failed.txt"):
        path.write_text("precious")
    sweep = tmp_path / "sweep"
    for job in ("1/.hydra", "2"):
        (sweep / job).mkdir(parents=True)
    for link in ("multirun.yaml", "1/failed.txt", "1/failed.tmp", "1/.hydra/config.yaml", "1/.hydra/hydra.tmp"):
        (sweep / link).symlink_to(precious)
    for link in ("0", "2/.hydra"):
        (sweep / link).symlink_to(elsewhere)
    code, _, err = command("train", *SMALL, "-m", "optim.lr=-1,-2,-3", "hydra.sweep.dir=sweep")
    assert code == 2
    assert f"{sweep / '0'} is a link to another place; remove it" in err
    assert f"{sweep / '2/.hydra'} is a link to another place; remove it" in err
    assert (precious.read_text(), there(elsewhere)) == ("precious", {elsewhere / "failed.txt": b"precious"})
    assert (sweep / "multirun.yaml").is_symlink()  # as it was
    assert "optim.lr=-2" in (sweep / "1/failed.txt").read_text()
    assert not (sweep / "1/failed.txt").is_symlink()


def test_a_sweep_over_a_users_own_model_goes_on_too(command, tmp_path):
    (tmp_path / "swept_net.py").write_text(OWN)
    words = ["train", "-m", "model=custom", "model._target_=swept_net.MyNet", "+model.width=5,7", "device=cpu"]
    for steps in (20, 30):
        code, out, err = command(*words, f"train.steps={steps}", "hydra.sweep.dir=sweep")
        assert (code, err) == (0, "")
        assert out.count(f"{steps} steps recorded") == 2


@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_a_signal_before_the_first_step_leaves_nothing(command, tmp_path, monkeypatch, number, word):
    monkeypatch.setattr(loop, "begin", lambda _: os.kill(os.getpid(), number))
    assert command("train", *SMALL, "hydra.run.dir=new/run") == (128 + number, "", f"neuralmech: {word}\n")
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_does_not_wait_and_says_how_to_go_on(command, monkeypatch):
    real = loop.hyperparameters

    def press(optim, step, *rest):
        if step == 20:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.2 * SAME_SECONDS)
            os.kill(os.getpid(), signal.SIGINT)
        return real(optim, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "hyperparameters", press)
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
