"""Data sets whose items draw random numbers: the same items wherever and whenever they are read, new in each epoch."""

import random
import sys

import numpy as np
import pytest
import torch

from conftest import config
from neuralmech.data import CustomOptions, Dataset, settle, training_batches
from neuralmech.data.dataset import Place, in_memory
from neuralmech.data.options import AugmentOptions, DataOptions
from neuralmech.data.parts import Items, Samples
from neuralmech.errors import UserError
from neuralmech.record import open_record
from neuralmech.training import loop
from train_twins import assert_twins, stopped

CPU = torch.device("cpu")
N = 40


class Fixed:
    """Samples of five numbers; `classes` as torchvision's sets have them."""

    classes = ("a", "b")

    def __len__(self):
        return N

    def __getitem__(self, i):
        return torch.full((5,), float(i)), i % 2


class Torchs(Fixed):
    def __getitem__(self, i):
        return torch.full((5,), i + float(torch.rand(()))), i % 2


class Numpys(Fixed):
    def __getitem__(self, i):
        return torch.full((5,), i + np.random.rand()), i % 2  # noqa: NPY002


class Pythons(Fixed):
    def __getitem__(self, i):
        return torch.full((5,), i + random.random()), i % 2


class Own(Fixed):
    """Three kinds of generators of its own, one of them deep inside."""

    def __init__(self):
        self.torchs = torch.Generator().manual_seed(3)
        self.inside = [{"numpys": np.random.default_rng(5)}, random.Random(6), np.random.RandomState(7)]

    def __getitem__(self, i):
        numpys, pythons, old = self.inside
        drawn = [float(torch.rand((), generator=self.torchs)), numpys["numpys"].random(), pythons.random(), old.rand()]
        return torch.tensor([i, *drawn]).float(), i % 2


class Rare(Fixed):
    """One item alone, neither the first nor the last, is random."""

    def __getitem__(self, i):
        return torch.full((5,), i + (float(torch.rand(())) if i == 23 else 0.0)), i % 2


KINDS = (Torchs, Numpys, Pythons, Own, Rare)


def given(kind="Torchs"):
    return getattr(sys.modules[__name__], kind)(), Fixed()


def batches(kind, workers=0, seed=5, **more):
    data = Dataset(Items(kind()), Items(Fixed()), 2).to(Place(CPU, torch.float64, streamed=True, workers=workers))
    return training_batches(data, CustomOptions(batch_size=8, **more), seed)


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_a_function_of_seed_epoch_and_number(kind):
    """In order, back, far ahead, by another object: by sample number they are the same, in another epoch not."""
    first, again, other = batches(kind), batches(kind), batches(kind, seed=6)
    epochs = [torch.cat([first(5 * epoch + k)[0] for k in range(5)]) for epoch in (0, 1, 0)]
    backwards = torch.cat([again(k)[0] for k in (4, 3, 2, 1, 0)][::-1])
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[0], backwards)
    whole = [x[x[:, 0].argsort()] for x in (*epochs[:2], torch.cat([other(k)[0] for k in range(5)]))]
    for x in whole[1:]:
        assert torch.equal(x.floor()[:, 0], whole[0].floor()[:, 0])  # the same samples
        drawn = (x != whole[0]).any(dim=1)
        assert drawn.tolist() == ([i == 23 for i in range(N)] if kind is Rare else [True] * N)


class Sent(Own):
    """Without PyTorch's, which cannot be sent to other processes."""

    def __init__(self):
        super().__init__()
        self.torchs = None

    def __getitem__(self, i):
        numpys, pythons, old = self.inside
        return torch.tensor([i, numpys["numpys"].random(), pythons.random(), old.rand()]).float(), i % 2


def test_a_generator_that_cannot_be_sent_is_said_in_one_line():
    with pytest.raises(UserError, match=r"cannot be sent to other processes .it keeps a torch.Generator.*workers=0"):
        batches(Own, workers=1)(0)


@pytest.mark.parametrize("kind", [Numpys, Sent])
def test_workers_read_the_same(kind):
    here, there = batches(kind), batches(kind, workers=2)
    for step in (0, 1, 2, 7):
        assert torch.equal(here(step)[0], there(step)[0])
    there.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_global_generators_are_left_alone(kind):
    read = batches(kind)
    torch.manual_seed(1), np.random.seed(2), random.seed(3)  # noqa: NPY002
    wanted = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    torch.manual_seed(1), np.random.seed(2), random.seed(3)  # noqa: NPY002
    read(0)
    in_memory(Items(kind()))
    found = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    assert torch.equal(found[0], wanted[0])
    assert (np.array_equal(found[1], wanted[1]), found[2]) == (True, wanted[2])


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_random_is_never_kept(workers):
    """Whichever item it is, and whatever it draws from; the part that is not random is kept."""
    for kind in KINDS if not workers else (Rare,):
        data = settle(Dataset(Items(kind()), Items(Fixed()), 2), DataOptions("auto", workers), CPU, torch.float32)
        assert isinstance(data.train, Items)
        assert isinstance(data.test, Samples)
        with pytest.raises(UserError, match=r"data\.residency=device: items of the data set are drawn at random"):
            settle(Dataset(Items(Fixed()), Items(kind()), 2), DataOptions("device", workers), CPU, torch.float32)


def test_whole_batches_of_random_items_are_no_one_loss():
    """The loss of such a run is another one at every step, however few of its items are random."""
    for kind, same in ((Fixed, True), (Rare, False)):
        data = Dataset(Items(kind()), Items(Fixed()), 2).to(Place(streamed=True))
        assert training_batches(data, CustomOptions(batch_size=N), 0).are_whole is same
    assert not batches(Fixed).are_whole
    assert not batches(Fixed, augment=AugmentOptions(flip=False), label_noise=0.1).are_whole


def test_the_held_out_part_is_the_same_at_every_evaluation():
    data = Dataset(Items(Fixed()), Items(Torchs()), 2).to(Place(streamed=True))
    first, second = (torch.cat([x for x, _ in data.held_out(size)]) for size in (8, 7))
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ["Rare", "Own"])
def test_a_run_on_random_items_is_resumed_bit_for_bit(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "random_items", sys.modules[__name__])
    own = {"name": "_target_", "target": "random_items.given", "arguments": {"kind": kind}}
    train = {"steps": 20, "eval_every": 5, "checkpoint": {"every": 7}}
    options = {"data": {**own, "batch_size": 8, "workers": 0}, "train": train}
    twin = tmp_path / "twin"
    twin.mkdir()
    loop.train(config(**options), twin)
    folder = stopped(tmp_path, monkeypatch, 9, options)
    loop.resume(folder, {"data._target_": "random_items.given", "data.kind": kind})
    assert_twins(twin, folder, 20)
    with open_record(twin) as record:
        assert record.rows == 20


def drawn():
    """Data that are made up anew, out of every global generator."""
    x = torch.rand(20, 3) + torch.as_tensor(np.random.rand(20, 3)).float() + random.random()  # noqa: NPY002
    return x, torch.arange(20) % 2, x, torch.arange(20) % 2


def test_data_made_up_at_random_are_the_same_every_time(monkeypatch):
    from neuralmech.data import load_data

    monkeypatch.setitem(sys.modules, "random_items", sys.modules[__name__])
    options = CustomOptions(target="random_items.drawn", batch_size=4)
    first = load_data(options).train
    torch.rand(5), np.random.rand(2), random.random()  # noqa: NPY002
    second = load_data(options).train
    assert isinstance(first, Samples)
    assert isinstance(second, Samples)
    assert torch.equal(first.x, second.x)
