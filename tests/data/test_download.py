"""A download is whole and the right one, or not there, and one line says why."""

import os

import pytest

from image_files import limited_files, served, sha256
from neuralmech.data import download
from neuralmech.data.download import data_folder, fetch, whole
from neuralmech.data.sources import Remote
from neuralmech.errors import UserError

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "set.bin").write_bytes(CONTENT)
    (folder / "other.bin").write_bytes(CONTENT[1:])
    with served(folder) as address:
        yield folder, address


def remote(site, *names):
    folder, address = site
    return Remote("set.bin", sha256(folder / "set.bin"), tuple(address + name for name in names))


def test_a_file_is_downloaded_once(site, tmp_path):
    path = fetch(remote(site, "set.bin"), tmp_path / "new/folder")
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["set.bin"]
    assert fetch(remote(site), path.parent) == path  # there is nowhere to load it from


@pytest.mark.parametrize("first", ["cut/set.bin", "other.bin", "missing.bin"])
def test_the_next_mirror_is_tried(site, tmp_path, first):
    assert fetch(remote(site, first, "set.bin"), tmp_path / "to").read_bytes() == CONTENT


def test_what_is_wrong_with_every_mirror_is_told_and_nothing_is_left(site, tmp_path):
    closed = Remote("set.bin", "0" * 64, ("http://127.0.0.1:9/set.bin",))
    asked = remote(site, "cut/set.bin", "other.bin", "missing.bin")
    with pytest.raises(UserError) as error:
        fetch(Remote("set.bin", asked.sha256, (*asked.urls, *closed.urls)), tmp_path / "to")
    text = str(error.value)
    assert text.startswith("set.bin cannot be downloaded (http://127.0.0.1:")
    assert text.count("incomplete, or another file") == 2
    assert "missing.bin: File not found" in text
    assert "Connection refused" in text
    assert "put the file into" in text
    assert list((tmp_path / "to").iterdir()) == []


def test_a_damaged_file_is_named_and_kept(site, tmp_path):
    path = tmp_path / "set.bin"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"set.bin is incomplete or damaged; delete it, and it will be downloaded"):
        fetch(remote(site, "set.bin"), tmp_path)
    assert path.read_bytes() == CONTENT[:-1]


def test_no_room(site, tmp_path):
    with (
        limited_files(100_000),
        pytest.raises(UserError, match=r"set.bin cannot be written \(File too large\); make room"),
    ):
        fetch(remote(site, "set.bin"), tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_a_folder_that_cannot_be(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written \(.*\); make room or choose another data.folder"):
        fetch(remote(site, "set.bin"), tmp_path / "file")


def test_an_interrupted_file_vanishes(tmp_path):
    def interrupted():
        with whole(tmp_path / "set.bin") as file:
            file.write(b"half")
            assert len(list(tmp_path.iterdir())) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_where_files_are(monkeypatch, tmp_path):
    for name in ("NEURALMECH_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder(None, "mnist") == tmp_path / ".cache/neuralmech/mnist"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert str(data_folder(None, "mnist")) == "/cache/neuralmech/mnist"
    monkeypatch.setenv("NEURALMECH_DATA", "/data")
    assert str(data_folder(None, "mnist")) == "/data/mnist"
    assert data_folder("~/own", "mnist") == tmp_path / "own/mnist"


def test_a_silent_server_does_not_hold_a_run(monkeypatch, tmp_path):
    import socket

    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/set.bin"
        with pytest.raises(UserError, match="timed out"):
            fetch(Remote("set.bin", "0" * 64, (url,)), tmp_path)
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_whoever_may_read_the_folder_may_read_the_file(site, tmp_path):
    path = fetch(remote(site, "set.bin"), tmp_path / "shared")
    assert path.stat().st_mode & 0o777 == path.parent.stat().st_mode & 0o666
