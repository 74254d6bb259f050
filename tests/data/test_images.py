"""The image data sets, from files in their true formats."""

import gzip
import re
import zipfile

import numpy as np
import pytest
import torch
from torchvision.datasets import ImageFolder
from torchvision.datasets.mnist import read_image_file, read_label_file

from image_files import make_cifar, make_mnist, make_tiny_imagenet, publish_at, served
from neuralmech.config import resolve
from neuralmech.data import ImageOptions, load_data
from neuralmech.data.dataset import Inputs, measure
from neuralmech.data.sources import REMOTES
from neuralmech.errors import UserError

NAMES = ("mnist", "cifar10", "cifar100", "tinyimagenet")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "site"
    folder.mkdir()
    with served(folder) as address:
        yield folder, address


def options(tmp_path, name, **more):
    return ImageOptions(name=name, folder=str(tmp_path / "data"), batch_size=4, **more)


def assert_is(data, arrays):
    found = (data.train.x, data.train.y, data.test.x, data.test.y)
    assert [t.dtype for t in found] == [torch.uint8, torch.int64] * 2
    for tensor, array in zip(found, arrays, strict=True):
        assert np.array_equal(tensor.numpy(), array)


def test_mnist(site, tmp_path, monkeypatch):
    folder, address = site
    arrays = make_mnist(folder, monkeypatch)
    publish_at((address + "nowhere/", address), monkeypatch, "mnist")
    data = load_data(options(tmp_path, "mnist"))
    assert_is(data, arrays)
    assert (data.shape, data.classes, data.has_tokens) == ((1, 28, 28), 10, False)
    raw = tmp_path / "data/mnist/train-images-idx3-ubyte"
    raw.write_bytes(gzip.decompress(raw.with_suffix(".gz").read_bytes()))
    assert torch.equal(read_image_file(str(raw)), data.train.x[:, 0])  # torchvision reads the same file
    raw.write_bytes(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()))
    assert torch.equal(read_label_file(str(raw)), data.test.y)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(site, tmp_path, monkeypatch, name, classes):
    folder, _ = site
    arrays = make_cifar(folder, monkeypatch, name)
    (archive,) = REMOTES[name]
    (tmp_path / "data" / name).mkdir(parents=True)
    (folder / archive.name).rename(tmp_path / "data" / name / archive.name)  # a file that the user brought
    data = load_data(options(tmp_path, name))
    assert_is(data, arrays)
    assert (data.shape, data.classes) == ((3, 32, 32), classes)


def test_tiny_imagenet(site, tmp_path, monkeypatch):
    folder, address = site
    make_tiny_imagenet(folder, monkeypatch)
    publish_at((address,), monkeypatch, "tinyimagenet")
    (remote,) = REMOTES["tinyimagenet"]
    chosen = options(tmp_path, "tinyimagenet")
    data = load_data(chosen)
    with zipfile.ZipFile(folder / remote.name) as archive:
        archive.extractall(tmp_path)
    there = ImageFolder(str(tmp_path / "tiny-imagenet-200/train"))  # torchvision on the files
    wanted = {np.asarray(image).transpose(2, 0, 1).tobytes(): label for image, label in there}
    found = {x.numpy().tobytes(): int(y) for x, y in zip(data.train.x, data.train.y, strict=True)}
    assert found == wanted
    assert len(found) == 12
    assert data.test.y.tolist() == [2, 1, 0, 2, 1, 0]
    (chosen.files / remote.name).unlink()  # decoded once
    again = load_data(chosen)
    assert torch.equal(again.test.x, data.test.x)
    kept = chosen.files / "tiny-imagenet-200.npz"
    damaged = bytearray(kept.read_bytes())
    damaged[20_000] ^= 1
    kept.write_bytes(damaged)
    with pytest.raises(UserError, match=r"tiny-imagenet-200.npz is damaged \(Bad CRC-32.*; delete it"):
        load_data(chosen)


def test_published_files_are_named():
    files = [remote for remotes in REMOTES.values() for remote in remotes]
    assert len({remote.sha256 for remote in files}) == 7
    assert all(re.fullmatch("[0-9a-f]{64}", remote.sha256) for remote in files)
    assert all(remote.urls[0].startswith("https://") for remote in files)
    assert all(url.endswith(f"/{remote.name}") for remote in files for url in remote.urls)
    names = ["cifar-10-binary.tar.gz", "cifar-100-binary.tar.gz"]  # the ones without pickles
    assert [REMOTES[name][0].name for name in ("cifar10", "cifar100")] == names


def test_bytes_become_standardised_numbers():
    x = torch.randint(256, (50, 3, 7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = measure(x)
    real = x.double() / 255
    assert pixels.mean == pytest.approx(real.mean(dim=(0, 2, 3)).tolist(), abs=1e-12)
    assert pixels.std == pytest.approx(real.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-12)
    out = Inputs(torch.device("cpu"), torch.float64, pixels)(x)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (pixels.mean, pixels.std))
    torch.testing.assert_close(out, (real - mean) / std, rtol=0, atol=1e-14)
    assert measure(torch.full((2, 1, 3, 3), 7, dtype=torch.uint8)).std == (1 / 255,)


@pytest.mark.parametrize("name", NAMES)
def test_every_set_has_its_config(name):
    import yaml

    from neuralmech.cli import config_folder

    group = yaml.safe_load((config_folder() / f"data/{name}.yaml").read_text())
    data = resolve({"model": {"name": "mlp"}, "data": group}).data
    assert (data.name, data.batch_size, data.folder, data.residency) == (name, 64, None, "auto")
    assert (data.augment.crop, data.augment.flip) == (0, False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"augment": {"crop": -1}}, "data.augment.crop=-1 is too small"),
        ({"augment": {"corp": 1}}, "data.augment.corp is no option; did you mean data.augment.crop"),
        ({"residency": "gpu"}, "data.residency=gpu is unknown"),
        ({"workers": -1}, "data.workers=-1 is too small"),
        ({"label_noise": 1.0}, "data.label_noise=1.0 is no share"),
    ],
)
def test_impossible_options_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        resolve({"model": {"name": "mlp"}, "data": {"name": "cifar10", **wrong}})
