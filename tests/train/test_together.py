"""Runs in two processes, which gloo joins: the record of one process, and the same bits each time."""

import signal
import time

import h5py
import numpy as np
import pytest

import neuralmech
import ranks
from conftest import config
from neuralmech.errors import UserError
from neuralmech.training import loop
from neuralmech.training.begin import begin
from neuralmech.training.place import Rank, placed
from train_twins import assert_alike, assert_twins, contents

STEPS = 12
HOW = {"precision": "fp64", "steps": STEPS}
DATA = {"batch_size": 16}
MASKED = {"name": "_target_", "target": "ranks.labelled", "batch_size": 8, "classes": 4}
IMAGES = {"name": "_target_", "target": "ranks.pictures", "batch_size": 16, "classes": 3}
NESTEROV = {"lr": 0.1, "nesterov": True, "momentum": 0.9}
WEIGHED = {"name": "cross_entropy", "weight": [1.0, 2.0, 5.0, 0.5]}
DROPOUT = {
    "model": {"name": "transformer", "width": 8, "heads": 2, "depth": 1, "dropout": 0.2},
    "data": {"name": "tokens", "modulus": 7, "batch_size": 8},
    "optim": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
}
NORMED = {"model": {"name": "convnet", "norm": "batch", "width": 4, "depth": 2}, "data": IMAGES}
# What is run in one process and in two, and how near the records come: sums of halves round otherwise than sums of the
# whole, by 10⁻⁷ of a float32 gradient and 10⁻¹⁶ of a float64 one, and 12 steps do not carry that far.
TWINS = {
    "float32": ({"data": DATA, "optim": {"lr": 0.1, "momentum": 0.9}, "train": {"steps": STEPS}}, 1e-5),
    "float64": ({"data": DATA, "train": {**HOW, "eval_every": 5}}, 1e-10),
    "adamw": ({"data": DATA, "optim": {"name": "adamw", "lr": 1e-3}, "train": HOW}, 1e-10),
    "parts": ({"data": DATA, "train": {**HOW, "accumulate": 4}}, 1e-10),
    "clipped": ({"data": DATA, "optim": NESTEROV | {"clip_norm": 0.3}, "train": HOW}, 1e-10),
    "sam": ({"data": DATA, "optim": {"lr": 0.1, "sam_rho": 0.05}, "train": HOW}, 1e-10),
    "masked": ({"data": MASKED, "loss": WEIGHED, "train": {**HOW, "accumulate": 2}}, 1e-10),
    "noisy labels": ({"data": {**DATA, "label_noise": 0.3}, "track": {"every": 3}, "train": HOW}, 1e-10),
    "streamed": ({"data": {**DATA, "residency": "loader", "workers": 0}, "train": HOW}, 1e-10),
    "augmented": ({"data": {**IMAGES, "augment": {"crop": 2, "flip": True}}, "train": HOW}, 1e-10),
    "halves": ({"data": DATA, "track": {"noise": 3}, "train": HOW}, 1e-9),
    "set": ({"data": DATA, "track": {"noise": 5, "noise_from": "set"}, "train": HOW}, 1e-9),
}  # fmt: skip
QUICK = ("float32", "masked", "halves")
HALF = {"data": DATA, "optim": {"lr": 0.1, "momentum": 0.9}, "train": {**HOW, "steps": STEPS // 2}}
ON = {"train.steps": STEPS}


def longer(options):
    return {**options, "train": {**options["train"], "steps": STEPS}}


def alone(folder, options):
    folder.mkdir()
    loop.train(config(**options), folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of runs in two processes, which one start of torchrun carries out: importing torch takes longer."""
    place = tmp_path_factory.mktemp("runs")
    alone(place / "from one", HALF)
    dropping = {**DROPOUT, "train": {"steps": STEPS // 2}}
    jobs = [(place / name, TWINS[name][0], None) for name in QUICK]
    jobs += [
        (place / "from one", None, ON),
        (place / "from two", HALF, None),
        (place / "dropping", longer(dropping), None),
        (place / "resumed", dropping, None),
        (place / "resumed", None, ON),
    ]
    ranks.together(jobs)
    return place


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """The others."""
    place = tmp_path_factory.mktemp("more")
    jobs = [(place / name, options, None) for name, (options, _) in TWINS.items() if name not in QUICK]
    jobs += [(place / "normed", {**NORMED, "train": HOW}, None)]
    ranks.together(jobs)
    return place


def assert_twin_of_one(name, place, tmp_path):
    options, bound = TWINS[name]
    assert_alike(alone(tmp_path / "one", options), place / name, bound)
    with h5py.File(place / name / "record.h5") as two, h5py.File(tmp_path / "one" / "record.h5") as one:
        assert (one.attrs["processes"], two.attrs["processes"]) == (1, 2)


@pytest.mark.parametrize("name", QUICK)
def test_two_processes_record_what_one_does(runs, tmp_path, name):
    assert_twin_of_one(name, runs, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TWINS if name not in QUICK])
def test_two_processes_record_what_one_does_whatever_the_run(more, tmp_path, name):
    assert_twin_of_one(name, more, tmp_path)


def test_some_shares_of_what_is_masked_have_no_target():
    batches = begin(config(**TWINS["masked"][0])).batches
    targets = [batches(k)[1] for k in range(STEPS)]
    assert any((y[rank::2] == ranks.IGNORED).all() for y in targets for rank in (0, 1))


def test_another_number_of_processes_may_go_on(runs, tmp_path):
    """From one to two and from two to one, it is the run that never stopped, but for rounding."""
    whole = alone(tmp_path / "whole", longer(HALF))
    loop.resume(runs / "from two", ON)
    for name in ("from one", "from two"):
        first, second = contents(whole), contents(runs / name)
        np.testing.assert_allclose(second["rescale/value"], first["rescale/value"], rtol=1e-11, atol=1e-13)
        assert len(second["steps/step"]) == STEPS
    with h5py.File(runs / "from one" / "record.h5") as two, h5py.File(runs / "from two" / "record.h5") as one:
        assert (one.attrs["processes"], two.attrs["processes"]) == (1, 2)


@pytest.mark.slow
def test_batchnorm_is_of_each_share(more, tmp_path):
    """Two processes normalise as one does that takes two parts; running statistics are the first one's."""
    one = contents(alone(tmp_path / "one", {**NORMED, "train": {**HOW, "accumulate": 2}}))
    two = contents(more / "normed")
    for name in ("rescale/value", "scale/value", "norms/gradient", "steps/loss"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-9, atol=1e-12, err_msg=name)
    whole = contents(alone(tmp_path / "whole", {**NORMED, "train": HOW}))
    assert np.abs(whole["steps/loss"] - two["steps/loss"]).max() > 1e-3


def test_the_same_bits_each_time_with_dropout_too(runs):
    """The other process draws its own numbers, which a checkpoint of the first one need not hold."""
    assert_twins(runs / "dropping", runs / "resumed", STEPS)


def test_processes_draw_different_numbers(runs, tmp_path):
    """If both dropped the same, the record would be that of dropping alike; it is not that of one process either."""
    one = contents(alone(tmp_path / "one", longer({**DROPOUT, "train": {"steps": 1}})))
    assert not np.allclose(one["steps/loss"], contents(runs / "dropping")["steps/loss"], rtol=1e-3)


def command(tmp_path, *words, **options):
    """``torchrun -m neuralmech`` in a folder."""
    small = ["model=mlp", "model.width=8", "data.batch_size=16", "device=cpu", "hydra.run.dir=made"]
    return ranks.start(2, "-m", "neuralmech", *words, *small, cwd=tmp_path, **options)


def said(text):
    """Our own lines among those of torchrun, but for those of a machine that is slow or new."""
    ours = [line for line in text.splitlines() if line.startswith("neuralmech:")]
    return [line for line in ours if not line.endswith("so far)") and "compiling the sums" not in line]


FAILING = """
import os
from torch import nn

class Fails(nn.Module):
    def __init__(self, how="raise"):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
        self.how, self.calls = how, 0

    def forward(self, x):
        self.calls += 1
        if os.environ["RANK"] == "1" and self.calls == 20:
            if self.how == "kill":
                os.kill(os.getpid(), 9)
            raise ValueError("a mine")
        return self.net(x)
"""


@pytest.mark.parametrize("how", ["raise", pytest.param("kill", marks=pytest.mark.slow)])
def test_one_that_fails_ends_all_and_says_why(tmp_path, how):
    (tmp_path / "failing.py").write_text(FAILING)
    begun = time.monotonic()
    words = ["model=custom", "model._target_=failing.Fails", f"+model.how={how}", "hydra.run.dir=made", "device=cpu"]
    started = ranks.start(2, "-m", "neuralmech", "train", *words, cwd=tmp_path)
    code, out, err = ranks.ended(started)
    assert code == 1
    assert time.monotonic() - begun < 60  # and not when somebody's patience ends
    assert said(err) == (["neuralmech: rank 1 of 2: ValueError: a mine at failing.py:16"] if how == "raise" else [])
    assert out.count("Recording") == 1, (out, err)
    with h5py.File(tmp_path / "made" / "record.h5") as record:
        assert record.attrs["status"].decode() == "stopped: another process of the run ended"
        assert 0 < record["committed"][0] < 20


MISSING = """
import os, sys, time
if os.environ["RANK"] == "1":
    time.sleep(4)
    sys.exit(3)
from neuralmech.cli import main
main(["train", "model=mlp", "model.width=8", "device=cpu", "hydra.run.dir=made"])
"""


@pytest.mark.slow
def test_one_that_never_joins_keeps_nobody_waiting(tmp_path):
    """torchrun asks the others to end, and would kill them after 30 seconds."""
    (tmp_path / "missing.py").write_text(MISSING)
    begun = time.monotonic()
    code, _, err = ranks.ended(ranks.start(2, "missing.py", cwd=tmp_path))
    assert code == 1
    assert time.monotonic() - begun < 25
    assert not said(err)
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_all_with_a_checkpoint(tmp_path, number):
    started = command(tmp_path, "train", "train.steps=1000000")
    first = tmp_path / "made" / "checkpoints" / "step-00000000.skeleton"
    while not first.exists():
        assert started.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    started.send_signal(number)  # to torchrun, which passes it on
    _, _, err = ranks.ended(started)
    (line,) = said(err)
    word = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}[number]
    assert line.startswith(f"neuralmech: {word}; the record holds ")
    assert line.endswith("; neuralmech train resume=made continues")
    steps = int(line.split("holds ")[1].split()[0])
    assert (tmp_path / "made" / "checkpoints" / f"step-{steps:08d}.pt").exists()
    with h5py.File(tmp_path / "made" / "record.h5") as record:
        assert record.attrs["status"].decode() == f"interrupted at step {steps}"


WRONG = [
    (["train", "data.batch_size=17"], "data.batch_size=17 has no 2 equal parts for 2 processes"),
    (["train", "optim.lr=fast"], "optim.lr"),
    (["train", "train.precision=tf32"], "train.precision=tf32 is for GPUs"),
    (["train", "device=cuda:0"], "device=cuda:0 is one GPU for 2 processes; use device=cuda"),
    (["train", "--multirun", "seed=0,1"], "--multirun starts its own processes, and torchrun started 2"),
    (["train", "hydra.job.chdir=true"], "hydra.job.chdir=true moves one of the processes"),
    (["verify"], "verify is for one process, and torchrun started 2"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "line"), WRONG)
def test_what_is_wrong_is_said_once_and_nothing_is_written(tmp_path, words, line):
    code, out, err = ranks.ended(ranks.start(2, "-m", "neuralmech", *words, cwd=tmp_path))
    assert code == 1  # torchrun's
    (found,) = said(err)
    assert found.startswith(f"neuralmech: {line}")
    assert not out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_command_is_one_run(tmp_path):
    """Its folder is named after the first process's clock, and nothing but the first one's words is to be seen."""
    code, out, err = ranks.ended(
        ranks.start(2, "-m", "neuralmech", "train", "train.steps=3", "device=cpu", cwd=tmp_path)
    )
    assert code == 0, err
    (record,) = tmp_path.rglob("record.h5")
    assert (record.parent / ".hydra" / "config.yaml").exists()
    assert out.count("3 steps recorded") == 1
    assert not said(err)


@pytest.mark.parametrize(("count", "found"), [(1, None), (3, Rank(1, 3, 1))])
def test_what_torchrun_says(monkeypatch, tmp_path, count, found):
    for name, value in {"RANK": "1", "WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert placed() == found
    if found:
        with pytest.raises(UserError, match=r"neuralmech\.train is for one process, and torchrun started 3"):
            neuralmech.train({"model": "mlp"}, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    monkeypatch.delenv("MASTER_PORT")
    assert placed() is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"data": {"batch_size": 15}}, r"batch_size=15 has no 4 equal parts for 4 processes; .*batch_size=16"),
        ({"data": {"batch_size": 2}}, r"batch_size=2 has no 4 equal parts for 4 processes"),
        ({"data": {"batch_size": 4}, "train": {"accumulate": 2}}, "no 8 equal parts for 4 processes with train.acc"),
        ({"data": {"batch_size": 4}, "track": {"noise": 1}}, r"track\.noise=1: the halves of data\.batch_size=4"),
    ],
)
def test_batches_that_so_many_cannot_share(options, match):
    with pytest.raises(UserError, match=match):
        config(**options).check_parts(4)
