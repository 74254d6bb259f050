"""The same batches and evaluations wherever the samples are, in memory or read ahead."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from conftest import config
from image_files import limited_files, make_cifar
from neuralmech.data import CustomOptions, Dataset, settle, training_batches
from neuralmech.data.dataset import Pixels, Place, fits
from neuralmech.data.options import AugmentOptions, DataOptions
from neuralmech.data.parts import Items, Samples
from neuralmech.data.stream import Stream
from neuralmech.errors import RunError, UserError
from neuralmech.record import RecordError, open_record
from neuralmech.training.loop import evaluate, resume, train
from train_twins import assert_twins, in_process, train_there

pytestmark = pytest.mark.usefixtures("found_once")

CPU = torch.device("cpu")
OPTIONS = CustomOptions(batch_size=8, label_noise=0.3, augment=AugmentOptions(crop=2, flip=True))
STEPS = (0, 1, 2, 6, 7, 3, 3, 20)  # in order, over epochs, back, twice, far ahead


def images(count, seed):
    source = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=source)
    return Samples(x, torch.randint(10, (count,), generator=source))


def data(as_items=False):
    parts = images(50, 0), images(30, 1)
    parts = [Items(TensorDataset(p.x, p.y)) for p in parts] if as_items else parts
    return Dataset(*parts, classes=10, pixels=Pixels((0.5, 0.4, 0.3), (0.2, 0.3, 0.25)))


@pytest.mark.parametrize("as_items", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_either_way(as_items, dtype, workers):
    resident = data().to(Place(CPU, dtype))
    streamed = data(as_items).to(Place(CPU, dtype, streamed=True, workers=workers))
    first, second = (training_batches(d, OPTIONS, seed=5) for d in (resident, streamed))
    for step in STEPS:
        for a, b in zip(first(step), second(step), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
    second.close()
    for (a, y), (b, z) in zip(resident.held_out(7), streamed.held_out(7), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(y, z)


def test_items_that_fit_are_read_once_and_are_the_same():
    read = data(as_items=True).to(Place(CPU, torch.float32, workers=2))
    assert isinstance(read.train, Samples)
    assert torch.equal(read.train.x, images(50, 0).x)
    assert torch.equal(read.test.y, images(30, 1).y)


def test_the_global_random_numbers_are_left_alone():
    batches = training_batches(data().to(Place(streamed=True)), OPTIONS, seed=5)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_normalises_and_leaves_out_augmentation():
    """A linear model's mean loss and accuracy in float64, from the definition."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).double()
    wanted = data()
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (wanted.pixels.mean, wanted.pixels.std))
    logits = net((wanted.test.x.double() / 255 - mean) / std)
    losses = logits.logsumexp(dim=1) - logits[torch.arange(30), wanted.test.y]
    right = (logits.argmax(dim=1) == wanted.test.y).double().mean()
    for streamed in (False, True):
        loss, accuracy = evaluate(net, wanted.to(Place(streamed=streamed)), batch=7)
        assert loss == pytest.approx(float(losses.detach().mean()), rel=1e-12)
        assert accuracy == pytest.approx(float(right))


@pytest.mark.parametrize(
    ("device", "as_items", "free", "memory", "wanted"),
    [
        ("cpu", False, 0, 1, False), ("cpu", True, 0, 1e6, False), ("cpu", True, 0, 1e4, True),
        ("cuda", False, 4e4, 1e6, False), ("cuda", False, 3e4, 1e6, True),
        ("cuda", True, 4e4, 1e6, False), ("cuda", True, 4e4, 1e4, True),
    ],
)  # fmt: skip
def test_auto_keeps_on_the_device_what_takes_half_of_its_memory(
    monkeypatch, device, as_items, free, memory, wanted
):  # 80 images of 192 bytes with labels of 8: 16,000 bytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 0))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}.get)
    assert fits(data(as_items), torch.device(device)) is not wanted


def test_residency_is_as_asked():
    for asked, streamed in (("auto", False), ("device", False), ("loader", True)):
        assert settle(data(), DataOptions(asked, 0), CPU, torch.float32).place.streamed is streamed


class Slow:
    """Items that take long, so that a worker can be met while it reads."""

    def __len__(self):
        return 20

    def __getitem__(self, i):
        time.sleep(0.05)
        return torch.zeros(2), i


class Deadly(Slow):
    def __getitem__(self, i):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_leaves_signals_to_the_run_and_its_death_is_told(monkeypatch):
    stream = Stream(Items(Slow()), lambda k: torch.arange(k % 10, k % 10 + 2), CPU, workers=1)
    stream(0)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    assert stream(1)[1].tolist() == [1, 2]
    assert worker.is_alive()
    stream.close()
    worker.join(10)
    assert worker.exitcode == 0
    # PyTorch looks every 5 seconds whether its workers live
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.5,))
    with pytest.raises(RunError, match=r"worker .* exited unexpectedly.*can be resumed"):
        Stream(Items(Deadly()), lambda k: torch.arange(2), CPU, workers=1)(0)


def test_items_that_cannot_be_sent_to_a_worker():
    items = [(lambda: 0, 1)] * 4
    with pytest.raises(UserError, match=r"data.workers=1: the data set cannot be sent to other processes"):
        Stream(Items(items), lambda k: torch.arange(2), CPU, workers=1)(0)


def test_too_little_shared_memory():
    stream = Stream(images(500, 0), lambda k: torch.arange(2), CPU, workers=1)
    with (
        limited_files(50_000),
        pytest.raises(UserError, match=r"data.workers=1: .*; use data.workers=0, or allow more"),
    ):
        stream(0)
    for left in Path("/dev/shm").glob(f"torch_{os.getpid()}_*"):  # PyTorch leaves the file that it could not fill
        left.unlink()


def runs(tmp_path, monkeypatch, **data):
    """Options of a run on CIFAR-10 with everything that a batch can have."""
    folder = tmp_path / "files/cifar10"
    folder.mkdir(parents=True)
    make_cifar(folder, monkeypatch)
    return {
        "model": {"name": "mlp", "width": 4, "depth": 2, "norm": "batch"},
        "data": {
            "name": "cifar10", "folder": str(tmp_path / "files"), "batch_size": 16, "label_noise": 0.2,
            "augment": {"crop": 2, "flip": True}, **data,
        },
        "train": {"steps": 13, "eval_every": 4, "checkpoint": {"every": 3, "minutes": 0}},
    }  # fmt: skip


def test_a_run_on_images_is_the_same_streamed_and_resumed_in_the_middle_of_an_epoch(run, tmp_path, monkeypatch):
    options = runs(tmp_path, monkeypatch)  # 80 images, 5 steps in an epoch
    whole = run(**options)
    streamed = {**options, "data": {**options["data"], "residency": "loader", "workers": 1}}
    assert_twins(whole, run(**streamed), 13)
    folder = tmp_path / "stopped"
    folder.mkdir()
    train(config(**{**streamed, "train": {**options["train"], "steps": 7}}), folder)
    resume(folder, {"train.steps": 13, "data.folder": str(tmp_path / "files"), "data.residency": "device"})
    assert_twins(whole, folder, 13)
    folder = tmp_path / "again"
    folder.mkdir()
    train(config(**{**options, "train": {**options["train"], "steps": 8}}), folder)
    changes = {"data.residency": "loader", "data.workers": 0, "data.folder": str(tmp_path / "files")}
    resume(folder, {"train.steps": 13, **changes})
    assert_twins(whole, folder, 13)
    with pytest.raises(UserError, match=r"cannot be resumed with another data.augment.crop \(the run has 2\)"):
        resume(folder, {"data.augment.crop": 3, **changes})


@pytest.mark.parametrize(
    "data",
    [
        {"name": "digits", "label_noise": 0.2, "batch_size": 32},
        {"name": "tokens", "modulus": 7, "batch_size": 8},
    ],
)
def test_other_sets_can_be_streamed_too(run, data):
    model = {"name": "transformer", "width": 8, "heads": 2, "depth": 1} if data["name"] == "tokens" else {"name": "mlp"}
    folders = [run(model=model, data={**data, "residency": r, "workers": 1}) for r in ("device", "loader")]
    assert_twins(*folders, 40)


def test_a_signal_to_the_whole_group_stops_a_streamed_run_at_a_checkpoint(tmp_path, monkeypatch):
    """Ctrl-C reaches the workers too."""
    folder = tmp_path / "run"
    folder.mkdir()
    data = {"name": "digits", "residency": "loader", "workers": 1}
    options = {"data": data, "train": {"steps": 10**6, "eval_every": 0}, "track": {"block": 16}}
    child = in_process(in_own_group, options, folder)
    end = time.monotonic() + 60

    def rows():
        try:
            with open_record(folder) as record:
                return record.rows
        except (OSError, RecordError):
            return 0

    while rows() < 32:
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)
    child.join(60)
    assert child.exitcode == 130
    with open_record(folder) as record:
        assert record.status.startswith("interrupted at step")


def in_own_group(options, folder):
    os.setpgid(0, 0)
    train_there(options, folder)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("streamed", [False, True])
def test_a_gpu_gets_the_same_batches_without_being_waited_for(streamed):
    cuda = torch.device("cuda")
    on_cpu = training_batches(data().to(Place(CPU, torch.float64)), OPTIONS, seed=5)
    batches = training_batches(data().to(Place(cuda, torch.float64, streamed, 1)), OPTIONS, seed=5)
    batches(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [batches(step) for step in range(1, 14)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for step, (x, y) in enumerate(found, start=1):
        wanted = on_cpu(step)
        torch.testing.assert_close(x.cpu(), wanted[0], rtol=1e-14, atol=1e-14)  # division may round otherwise there
        assert torch.equal(y.cpu(), wanted[1])
    batches.close()


def test_bytes_stay_bytes():
    placed = data().to(Place(CPU, torch.float64))
    assert placed.train.x.dtype == torch.uint8
    assert placed.example(torch.float64).shape == (2, 3, 8, 8)
    assert placed.example(torch.float32).dtype == torch.float32
    assert placed.shape == (3, 8, 8)
    assert not placed.has_tokens


OTHERS = """
import multiprocessing, sys, time
from multiprocessing import forkserver
from neuralmech.data.readers import Readers
if __name__ == "__main__":
    if sys.argv[1] == "first":
        forkserver.ensure_running()
    Readers()
    process = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(100,))
    process.start()
    process.terminate()
    process.join(20 if sys.argv[1] == "first" else 2)
    print(process.exitcode)
    process.kill()
"""


@pytest.mark.parametrize(("order", "exitcode"), [("first", "-15"), ("then", "None")])
def test_a_server_of_somebody_elses_is_left_as_it_is(tmp_path, order, exitcode):
    """And the one that workers are forked from is deaf for everybody, as docs/data.md says."""
    (tmp_path / "others.py").write_text(OTHERS)
    words = [sys.executable, str(tmp_path / "others.py"), order]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == f"{exitcode}\n"
