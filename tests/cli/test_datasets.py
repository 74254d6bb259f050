"""neuralmech data: data sets fetched ahead of a run, checked, listed."""

import re

import pytest

from command_line import refused
from image_files import make_cifar, make_mnist, make_tiny_imagenet, publish_at, served
from neuralmech.cli import config_folder
from neuralmech.data.sources import ABOUT, REMOTES


@pytest.fixture
def site(tmp_path, monkeypatch):
    """All data sets with files, on a server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NEURALMECH_DATA", str(tmp_path / "own"))
    folder = tmp_path / "site"
    folder.mkdir()
    make_mnist(folder, monkeypatch)
    make_cifar(folder, monkeypatch)
    make_tiny_imagenet(folder, monkeypatch)
    with served(folder) as address:
        for name in ("mnist", "cifar10", "tinyimagenet"):
            publish_at((address,), monkeypatch, name)
        yield folder


def row_of(name, out):
    return next(line for line in out.splitlines() if line.startswith(f"{name} "))


def test_a_set_is_fetched_checked_and_counted(site, command, tmp_path):
    code, out, err = command("data", "mnist")
    assert (code, err) == (0, "")
    folder = tmp_path / "own/mnist"
    assert {p.name for p in folder.iterdir()} == {remote.name for remote in REMOTES["mnist"]}
    first, *files, last = out.splitlines()
    assert first == f"mnist in {folder}"
    assert [line.split()[0] for line in files] == [remote.name for remote in REMOTES["mnist"]]
    assert all(re.search(r"  \d+(\.\d+)? k?B  SHA-256 as published$", line) for line in files)
    assert last == "  60 + 20 examples 1×28×28 of 10 classes"
    for path in site.iterdir():
        path.unlink()
    assert command("data", "mnist")[:2] == (0, out)  # from the folder


def test_several_sets_and_a_folder_of_ones_choice(site, command, tmp_path):
    code, out, _ = command("data", "cifar10", "tinyimagenet", "folder=there")
    assert code == 0
    assert "80 + 20 examples 3×32×32 of 10 classes" in out
    assert "12 + 6 examples 3×64×64 of 200 classes" in out
    assert re.search(r"tiny-imagenet-200.npz  \d+ kB  decoded, checksums right", out)
    (tmp_path / "there/tinyimagenet/tiny-imagenet-200.zip").unlink()  # it is not needed any more
    code, out, _ = command("data", "tinyimagenet", "folder=there")
    assert code == 0
    assert "tiny-imagenet-200.zip" not in out
    assert row_of("tinyimagenet", command("data", "folder=there")[1]).rstrip().endswith(" decoded")


@pytest.mark.parametrize("remains", [b"", b"something else"])
def test_a_damaged_file_is_one_line_and_stays(site, command, tmp_path, remains):
    assert command("data", "mnist")[0] == 0
    path = tmp_path / "own/mnist" / REMOTES["mnist"][1].name
    path.write_bytes(remains)
    refused(command("data", "mnist"), f"{path} is incomplete or damaged; delete it, and it will be downloaded again")
    assert path.read_bytes() == remains


def test_a_damaged_archive_is_found_beside_what_was_decoded(site, command, tmp_path):
    assert command("data", "tinyimagenet")[0] == 0
    path = tmp_path / "own/tinyimagenet/tiny-imagenet-200.zip"
    path.write_bytes(path.read_bytes()[:-1])
    refused(command("data", "tinyimagenet"), "tiny-imagenet-200.zip is incomplete or damaged")


def test_no_network_is_one_line(command, tmp_path, monkeypatch):
    publish_at(("http://127.0.0.1:9/",), monkeypatch, "cifar100")
    refused(command("data", "cifar100", "folder=here"), "cifar-100-binary.tar.gz cannot be downloaded .*put the file")


def test_all_are_listed_with_what_they_need(site, command, tmp_path):
    assert command("data", "mnist")[0] == 0
    (tmp_path / "own/mnist" / REMOTES["mnist"][0].name).unlink()
    code, out, _ = command("data")
    assert code == 0
    files = {path.stem for path in (config_folder() / "data").glob("*.yaml")}
    assert {line.split()[0] for line in out.splitlines()[2:]} == set(ABOUT) == files
    assert row_of("mnist", out).rstrip().endswith("3 of 4")
    assert re.search(r"60,000 \+ 10,000 +1×28×28 +11 MB +download", row_of("mnist", out))
    assert row_of("cifar100", out).rstrip().endswith("no")
    assert row_of("digits", out).rstrip().endswith("yes")
    assert max(len(line) for line in out.splitlines()) <= 80


def test_sets_without_files_say_so_in_a_line(command):
    code, out, _ = command("data", "synthetic", "digits", "custom")
    assert code == 0
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["synthetic", "digits", "custom"]
    assert all("there is nothing to download" in line for line in lines)
    assert lines[2].endswith("it needs data._target_=…")
    assert command("data", "imagefolder")[1].endswith("it needs data.path=…\n")


def test_a_library_that_is_not_there_is_one_line(command, monkeypatch):
    monkeypatch.setattr("neuralmech.data.sources.find_spec", lambda name: None)
    refused(command("data", "digits"), "data=digits needs sklearn, which is not there; pip install scikit-learn")
    assert row_of("digits", command("data")[1]).rstrip().endswith("no")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mnits"], r"data=mnits is unknown .did you mean mnist.*choose one of digits"),
        (["mnist", "root=here"], "root is no option"),
        (["mnist", "folder=3"], "folder=3 must be a path"),
    ],
)
def test_wrong_words_are_one_line(command, tmp_path, words, message):
    refused(command("data", *words), message)
    assert not list(tmp_path.iterdir())
