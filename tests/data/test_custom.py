"""A user's own data, named by data._target_: tensors, or torch data sets that are read when wanted."""

import json
import os
import sys

import h5py
import pytest
import torch
from torch.utils.data import TensorDataset

from neuralmech.config import resolve
from neuralmech.data import load_data
from neuralmech.data.parts import Items, Samples
from neuralmech.errors import UserError
from train_twins import assert_twins

SHAPE = (3, 6, 5)


def pixels(count, shape=SHAPE):
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def tensors(count=40, kinds=4):
    """Images of bytes, labels as a list."""
    labels = [i % kinds for i in range(count)]
    return pixels(count), labels, pixels(count // 2), labels[: count // 2]


def sets(named=False):
    x, y, test_x, test_y = tensors()
    pair = TensorDataset(x, torch.tensor(y)), TensorDataset(test_x, torch.tensor(test_y))
    if named:  # as torchvision's are
        pair[0].classes = ["cat", "dog", "fox", "owl"]
    return pair


def reals():
    return torch.randn(20, 5), torch.arange(20) % 3, torch.randn(10, 5), torch.arange(10) % 3


def words():
    x = torch.arange(60).reshape(10, 6) % 7
    return x[:, :-1], x[:, 1:], x[:, :-1], x[:, 1:]


class Random:
    """Of a generator that nobody can seed."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.frombuffer(bytearray(os.urandom(3)), dtype=torch.uint8).float(), 0


class Strings(Random):
    def __getitem__(self, i):
        return 7


WRONG = {
    "nothing": lambda: None,
    "three": lambda: (1, 2, 3),
    "lengths": lambda: (torch.zeros(5, 2), torch.zeros(4), torch.zeros(5, 2), torch.zeros(5)),
    "labels": lambda: (torch.zeros(5, 2), -torch.ones(5).long(), torch.zeros(5, 2), torch.zeros(5).long()),
    "words": lambda: (["a", "b"], [0, 1], ["c", "d"], [0, 1]),
    "bytes_of_no_image": lambda: (pixels(9, (5,)), torch.arange(9), pixels(9, (5,)), torch.arange(9)),
    "random_items": lambda: (Random(), Random()),
    "no_pairs": lambda: (Strings(), Strings()),
}


def wrong(what):
    return WRONG[what]()


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_data", sys.modules[__name__])


def load(name, **more):
    data = {"_target_": f"own_data.{name}", "batch_size": 8, **more}
    return load_data(resolve({"model": {"name": "mlp"}, "data": data}).data)


def test_tensors():
    data = load("tensors", count=30, kinds=5, label_noise=0.1)
    assert isinstance(data.train, Samples)
    assert torch.equal(data.train.x, pixels(30))
    assert (data.classes, data.shape, len(data.test), data.has_tokens) == (5, SHAPE, 15, False)
    x = data.example(torch.float64)
    whole = pixels(30).double()
    assert torch.allclose(
        x, ((whole - whole.mean((0, 2, 3), True)) / whole.std((0, 2, 3), correction=0, keepdim=True))[:2]
    )


def test_numbers_and_words_stay_as_they_are():
    data = load("reals")
    assert (data.classes, data.shape, data.pixels, data.has_tokens) == (3, (5,), None, False)
    data = load("words")
    assert (data.classes, data.shape, data.has_tokens) == (7, (5,), True)


def test_torch_data_sets():
    data = load("sets", named=True)
    assert isinstance(data.train, Items)
    assert (data.classes, data.shape, len(data.train)) == (4, SHAPE, 40)
    assert data.pixels == load("tensors").pixels


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("absent", {}, "data._target_=own_data.absent names nothing that can be called"),
        ("tensors", {"count": 40, "size": 3}, "unexpected keyword argument 'size'; set its arguments as data.NAME"),
        ("tensors", {"count": 4}, "data.batch_size=8 is larger than the training data .4 samples"),
        ("sets", {}, "own_data.sets does not say how many classes there are; set data.classes"),
        ("wrong", {"what": "nothing"}, r"must give \(train_x, train_y, test_x, test_y\) or two torch data sets"),
        ("wrong", {"what": "three"}, r"must give \(train_x"),
        ("wrong", {"what": "lengths"}, "gives 5 inputs with 4 labels"),
        ("wrong", {"what": "labels", "classes": 3}, r"gives the label -1; labels go from 0 to 2"),
        ("wrong", {"what": "words"}, "gives no tensors"),
        ("wrong", {"what": "bytes_of_no_image"}, r"gives bytes of shape \(5,\); images are"),
        ("wrong", {"what": "random_items", "classes": 3}, "its items differ each time they are read, although"),
        ("wrong", {"what": "no_pairs", "classes": 3}, "item 0 of the training set is no pair of an input and a label"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(name, more, message):
    with pytest.raises(UserError, match=message) as error:
        load(name, **more)
    assert "\n" not in str(error.value)


OWN = """
import torch
from torch.utils.data import TensorDataset

open("ran", "w").close()

def my_data(size):
    x = torch.randn(size, 5, generator=torch.Generator().manual_seed(0))
    whole = TensorDataset(x, (x[:, 0] > 0).long())
    return whole, whole
"""
SMALL = ["model=mlp", "model.width=6", "train.steps=20", "device=cpu", "hydra.run.dir=run"]
GIVEN = ["data=custom", "data._target_=my_data_file.my_data"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    from hydra.core.global_hydra import GlobalHydra

    from neuralmech.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_data_file.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "my_data_file", raising=False)

    def call(*words):
        GlobalHydra.instance().clear()
        try:
            main(list(words))
        except SystemExit as stop:
            return stop.code, capsys.readouterr()
        return 0, capsys.readouterr()

    return call


def test_it_is_trained_on_verified_and_resumed_when_named(command, tmp_path):
    more = ["+data.size=64", "data.classes=2"]
    code, out = command("symmetries", "--json", SMALL[0], SMALL[1], *GIVEN, *more)
    assert (code, out.err) == (0, "")
    assert json.loads(out.out)["sites"]
    assert command("train", *SMALL, *GIVEN, *more)[0] == 0
    code, out = command("verify", "run", *GIVEN)
    assert "its data is code, of which you must give the same data.size (the run has 64)" in out.err
    assert command("verify", "run", *GIVEN, more[0])[0] == 0
    code, out = command(
        "train", "resume=run", *GIVEN, more[0], "train.steps=30", "data.workers=0", "data.residency=loader"
    )
    assert (code, out.err) == (0, "")
    assert "30 steps recorded" in out.out
    assert command("train", *SMALL[:2], *GIVEN, *more, "device=cpu", "hydra.run.dir=twin", "train.steps=30")[0] == 0
    assert_twins(tmp_path / "run", tmp_path / "twin", 30)
    code, out = command("train", "resume=run", *GIVEN, "+data.size=65")
    assert code == 2
    assert "its data is code, of which you must give the same data.size (the run has 64)" in out.err
    code, out = command("train", "resume=run", *GIVEN, more[0], "data.batch_size=3")
    assert "cannot be resumed with another data.batch_size (the run has 64)" in out.err


def test_a_record_never_runs_data_that_the_user_did_not_name(command, tmp_path):
    assert command("train", *SMALL, *GIVEN, "+data.size=64", "data.classes=2")[0] == 0
    (tmp_path / "ran").unlink()
    del sys.modules["my_data_file"]
    for words in (["verify", "run"], ["train", "resume=run"]):
        code, out = command(*words)
        assert code == 2
        assert "its data is code of your own, which a record must not name" in out.err
        assert len(out.err.splitlines()) == 1
    assert command("analyze", "run", "figures=false")[0] == 0
    code, out = command("verify", "run", "data=custom", "data._target_=os.getcwd")
    assert "you must give the same data._target_ (the run has 'my_data_file.my_data')" in out.err
    assert not (tmp_path / "ran").exists()
    with h5py.File(tmp_path / "run/record.h5", "a") as f:
        f.attrs["config"] = "data:\n  _target_: my_data_file.my_data\n  name: digits\n"
    for words in (["verify", "run"], ["train", "resume=run"], ["verify", "run", *GIVEN]):
        code, out = command(*words)
        assert (code, "is no plain value" in out.err) == (2, True)
    assert not (tmp_path / "ran").exists()
    code, out = command("symmetries", "data=custom")
    assert "data._target_ is missing; set data._target_=my_package.my_data" in out.err
