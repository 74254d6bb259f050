"""The manifest: whole at every look, whoever writes; what is known of the same jobs stays."""

import multiprocessing
import os

import pytest

from neuralmech.record import RecordError
from neuralmech.sweeps.manifest import Entry, Manifest
from neuralmech.sweeps.states import states_of


def count(folder, numbers):
    for number in numbers:
        Manifest(folder).update(number, state="done", seconds=float(number))


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=count, args=(tmp_path, range(k, 60, 3))) for k in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        Manifest(tmp_path).read()  # raises if it is not whole
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    found = Manifest(tmp_path).read()
    assert {number: entry.seconds for number, entry in found.items()} == {k: float(k) for k in range(60)}
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def test_what_is_known_of_a_job_stays_if_its_words_are_the_same(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.plan({0: ["seed=0"], 1: ["seed=1"]})
    manifest.update(0, state="done")
    manifest.update(1, state="failed", error="why")
    before = manifest.path.read_bytes()
    known = manifest.read()
    manifest.plan({0: ["seed=0", "sweep.retry=true"], 1: ["seed=5"], 2: ["seed=6"]})
    found = manifest.read()
    assert found[0] == known[0]
    assert found[1] == Entry(1, ("seed=5",))
    manifest.take_back(known)
    assert manifest.path.read_bytes() == before


@pytest.mark.parametrize("text", [b"", b"[]", b'{"jobs": [{"number": "0"}]}', b'{"jobs": [{"number": 0, "state": 5}]}'])
def test_a_damaged_manifest_is_named(tmp_path, text):
    (tmp_path / "sweep.json").write_bytes(text)
    with pytest.raises(RecordError, match=r"sweep\.json cannot be read .*; remove it"):
        Manifest(tmp_path).read()


def test_a_sweep_from_somewhere_else_shows_nothing_of_ours(tmp_path):
    sweep, ours = tmp_path / "sweep", tmp_path / "ours"
    ours.mkdir()
    (ours / "failed.txt").write_text("secret")
    Manifest(sweep).update(0, state="running", folder="../ours", process=f"elsewhere:{os.getpid()}")
    Manifest(sweep).update(1, state="running", folder="link")
    (sweep / "link").symlink_to(ours)
    assert {state.entry.error for state in states_of(sweep)} == {None}
    Manifest(ours).update(0, error="secret")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/sweep.json").symlink_to(ours / "sweep.json")
    assert Manifest(tmp_path / "other").read() == {}
