"""The user's own model by the command line, and code that a record names."""

import json
import sys

import h5py
import pytest

from command_line import OWN, refused

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


@pytest.mark.usefixtures("run")
def test_a_records_own_arguments_are_shown_and_never_passed(command, tmp_path):
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
