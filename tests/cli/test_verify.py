"""Symmetries and their verification by the command line."""

import pytest

from command_line import SMALL, refused


def test_symmetries_lists_charges_and_writes_nothing(command, tmp_path):
    code, out, _ = command("symmetries", "model.norm=batch", "model.activation=tanh")
    assert code == 0
    for text in ("classifier.weight", "scale", "barrier: tanh", "of the parameters are in at least one charge"):
        assert text in out
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("run")
def test_symmetries_of_a_run_are_those_of_its_model(command):
    fresh = command("symmetries", *(word for word in SMALL if word.startswith("model")), "data.batch_size=16", "--json")
    assert command("symmetries", "run", "--json") == fresh
    assert fresh[0] == 0
    for words, message in [
        (["run", "model.width=3"], "model.width does not go with a run, which has the model that it trained"),
        (["run", "run"], "symmetries takes one run folder"),
        (["nowhere"], "nowhere"),
    ]:
        refused(command("symmetries", *words), message)


def test_verify_fresh_and_trained(command):
    code, out, err = command("verify", "model=mlp", "model.norm=batch")
    assert (code, err) == (0, "")
    assert "a norm's eps" in out
    assert out.splitlines()[-1] == "all claims hold"
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


@pytest.mark.usefixtures("run")
def test_what_verify_would_ignore_is_one_line(command):
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


def test_laws_are_counted(command):
    """A deep linear net of the digits' size is too large; one of a few numbers is counted."""
    small = ["model=mlp", "model.width=3", "data=synthetic", "data.shape=[2]", "data.classes=2", "device=cpu"]
    code, out, _ = command("symmetries", *small, "model.activation=none", "model.depth=2", "certify=true")
    assert code == 0
    assert "independent conservation laws found" in out
    refused(command("symmetries", "model=mlp", "certify=true", "device=cpu"), "up to 1,000 parameters")
    refused(command("symmetries", *small, "certify=3"), "certify=3 must be true or false")
