"""Records that were torn, cut short or flipped: mended from the checkpoint beside them, or named. And their size."""

import random
import re
import shutil

import h5py
import pytest

from conftest import config
from neuralmech.errors import UserError
from neuralmech.record import RecordError, open_record
from neuralmech.record.skeleton import Skeleton
from neuralmech.record.writer import SLACK_BYTES
from neuralmech.training import loop
from neuralmech.training.checkpoint import skeleton_of
from neuralmech.training.loop import resume, train
from train_twins import assert_twins, stopped

pytestmark = pytest.mark.usefixtures("found_once")

OPTIONS = {
    "optim": {"lr": 0.1, "momentum": 0.9},
    "train": {"steps": 120, "eval_every": 9, "checkpoint": {"every": 60, "minutes": 0, "keep": 2}},
    "track": {"block": 8},
}


def test_a_record_torn_by_a_power_cut_goes_on_at_its_last_checkpoint(finished, tmp_path, monkeypatch):
    """Pages of 4 KiB, each as it was synced at the checkpoint or as it was at the cut; the new end, or the old."""
    synced, twin, real = tmp_path / "synced", finished(**OPTIONS), loop.Saver.save

    def save(saver, of, record):
        real(saver, of, record)
        if of.step == 60:
            shutil.copytree(record.path.parent, synced)

    monkeypatch.setattr(loop.Saver, "save", save)
    folder = stopped(tmp_path, monkeypatch, 115, OPTIONS)
    old, new = (synced / "record.h5").read_bytes(), (folder / "record.h5").read_bytes()
    unreadable = 0
    for seed in range(12):
        rng, torn = random.Random(seed), tmp_path / str(seed)
        size = rng.choice([len(old), len(new)])
        pages = [rng.choice([old, new])[at : at + 4096].ljust(4096, b"\0") for at in range(0, size, 4096)]
        shutil.copytree(synced, torn)
        (torn / "record.h5").write_bytes(b"".join(pages)[:size])
        try:
            open_record(torn).close()
        except RecordError as error:
            unreadable += 1
            assert f"neuralmech train resume={torn} mends it" in str(error)  # noqa: PT017
        resume(torn, {})
        assert_twins(torn, twin, 120)
    assert unreadable > 3


@pytest.mark.parametrize("left", [-1, -5000, 0, 100])
def test_a_record_that_was_cut_short_is_mended(run, finished, capsys, left):
    folder, twin = run(**OPTIONS), finished(**OPTIONS)
    path = folder / "record.h5"
    path.write_bytes(path.read_bytes()[:left])
    resume(folder, {})
    assert re.search(
        r"record.h5 is .*; mended: it is as it was at the checkpoint of step \d+\n", capsys.readouterr().err
    )
    assert_twins(folder, twin, 120)


def test_what_no_checkpoint_can_mend_is_left_as_it_is(run):
    folder = run(**OPTIONS)
    path = folder / "record.h5"
    path.write_bytes(path.read_bytes()[:-1])
    for step in (0, 60, 120):
        damaged = bytearray(skeleton_of(folder / "checkpoints", step).read_bytes())
        damaged[len(damaged) // 2] ^= 1
        skeleton_of(folder / "checkpoints", step).write_bytes(damaged)
    before = path.read_bytes()
    with pytest.raises(RecordError, match="no checkpoint beside it can mend it; restore a copy or train again"):
        resume(folder, {})
    assert path.read_bytes() == before


def test_whole_chunks_are_never_written_again(tmp_path, monkeypatch):
    """The skeleton of a checkpoint, and chunks of the record as it is much later, are the record of then."""
    folder = stopped(tmp_path, monkeypatch, 115, OPTIONS)
    later = (folder / "record.h5").read_bytes()
    Skeleton.load(skeleton_of(folder / "checkpoints", 60)).write_to(folder / "record.h5")
    with open_record(folder) as r:
        assert (r.rows, r.readable_rows()) == (56, 56)
    assert len((folder / "record.h5").read_bytes()) < len(later)


def test_a_flipped_bit_outside_the_rows_changes_nothing_unnoticed(finished, tmp_path):
    """Names, indices, attributes and counters have checksums, too."""

    def read():
        with open_record(tmp_path) as r:
            charges = map(r.charges, r.families)
            tables = [(c.index.to_csv(), c.parameter_index.to_csv(), c.norm_sites, c.signals) for c in charges]
            return r.rows, r.config, r.status, r.provenance, tables, len(r.evaluation())

    whole = (finished(**OPTIONS) / "record.h5").read_bytes()
    (tmp_path / "record.h5").write_bytes(whole)
    right, rng, places = read(), random.Random(0), set(range(len(whole)))
    with h5py.File(tmp_path / "record.h5") as file:
        for dataset in [*file["steps"].values(), *(d for g in file["charges"].values() for d in g.values())]:
            for i in range(dataset.id.get_num_chunks() if dataset.maxshape[0] is None else 0):
                found = dataset.id.get_chunk_info(i)
                places -= set(range(found.byte_offset, found.byte_offset + found.size))
    for at in rng.sample(sorted(p for p in places if whole[p]), 300):
        (tmp_path / "record.h5").write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        try:
            found = read()
        except RecordError:
            continue
        assert found == right, [(at, a, b) for a, b in zip(found, right, strict=True) if a != b]


def announced(text):
    """Bytes of record and checkpoints, as a run says them."""
    units = {"B": 1, "kB": 1e3, "MB": 1e6}
    return [float(n) * units[unit] for n, unit in re.findall(r"([\d.]+) (B|kB|MB)\b", text)]


@pytest.mark.parametrize("block", [1, 4, 256])
@pytest.mark.parametrize("optim", [{"lr": 0.1}, {"name": "adam", "lr": 0.01}])
def test_what_is_announced_is_enough_and_not_much_more(run, capsys, block, optim):
    train_options = {**OPTIONS["train"], "steps": 1000, "checkpoint": {"every": 100, "minutes": 0, "keep": None}}
    folder = run(optim=optim, train=train_options, track={"block": block, "noise": 50})
    record, saved = announced(capsys.readouterr().out)
    taken = (folder / "record.h5").stat().st_size
    assert 0.995 * taken <= 1.005 * record  # as many digits as it has
    assert record < 1.25 * taken + 100_000
    found = sum(p.stat().st_size for p in (folder / "checkpoints").glob("step-*"))
    assert found < 1.005 * saved
    assert saved < 6 * found


def written(folder):
    """Bytes of record, and of checkpoints with what stands beside them."""
    return (folder / "record.h5").stat().st_size, [
        sum(p.stat().st_size for p in (folder / "checkpoints").glob(f"{path.stem}.*"))
        for path in (folder / "checkpoints").glob("step-*.pt")
    ]


def test_a_resumed_run_says_what_it_adds_to_what_is_there(tmp_path, monkeypatch, capsys):
    """Cut-off rows stay in the file, and in the copies of what holds it together."""
    options = {**OPTIONS, "train": {"steps": 1000, "eval_every": 0, "checkpoint": {"every": 0, "minutes": 0}}}
    folder = stopped(tmp_path, monkeypatch, 995, options)
    capsys.readouterr()
    before, _ = written(folder)
    resume(folder, {})
    text = capsys.readouterr().out
    assert " besides the " in text
    added, there, saved = announced(text)
    assert there == pytest.approx(before, rel=0.005)
    after, checkpoints = written(folder)
    assert 0.5 * before < after - before <= 1.005 * added  # nothing that was cut off is used again
    assert sum(checkpoints) <= 1.005 * saved < 4 * sum(checkpoints)


@pytest.mark.parametrize("compress", [False, True])
def test_checkpoints_of_a_resumed_run_have_no_copy_of_whole_chunks(run, capsys, monkeypatch, compress):
    """Neither is it announced, nor a reason to refuse."""
    options = {"steps": 2000, "eval_every": 0, "checkpoint": {"every": 0, "minutes": 0}}
    folder = run(train=options, track={"block": 64, "compress": compress})
    before, _ = written(folder)
    room = 2 * (before + SLACK_BYTES)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - room, room))
    capsys.readouterr()
    resume(folder, {"train.steps": 2020})
    _, there, saved = announced(capsys.readouterr().out)
    _, checkpoints = written(folder)
    assert there == pytest.approx(before, rel=0.005)
    assert sum(checkpoints) <= 1.005 * saved < 2 * before


def test_what_checkpoints_by_the_minute_take_is_said_apart(run, capsys):
    chosen = {"every": 0, "minutes": 1e-9, "keep": None}
    folder = run(**{**OPTIONS, "train": {**OPTIONS["train"], "checkpoint": chosen}})
    text = capsys.readouterr().out
    assert re.search(r"; and [\d.]+ kB of checkpoints, besides [\d.]+ kB each 1e-09 minutes\n", text)
    _, saved, one = announced(text)
    _, checkpoints = written(folder)
    assert sum(checkpoints) > saved
    assert max(checkpoints) <= 1.005 * one
    run(**{**OPTIONS, "train": {**OPTIONS["train"], "checkpoint": {**chosen, "keep": 2}}})
    assert " each " not in capsys.readouterr().out


def test_what_compressed_blocks_leave_behind_is_left_out_and_said(run, capsys, monkeypatch):
    said = "at most .* not counting compressed blocks that are written again each minute; and"
    options = {**OPTIONS, "track": {"block": 64, "compress": True}}
    folder = run(**options)
    text = capsys.readouterr().out
    assert re.search(said, text)
    assert written(folder)[0] <= 1.005 * announced(text)[0]
    monkeypatch.setattr(loop, "COMMIT_SECONDS", 0)
    assert written(run(**options))[0] > 1.005 * announced(text)[0]
    capsys.readouterr()
    plain = run(**{**OPTIONS, "track": {"block": 64}})  # written again in its place
    text = capsys.readouterr().out
    assert "compressed" not in text
    assert written(plain)[0] <= 1.005 * announced(text)[0]


def test_a_run_that_does_not_fit_is_refused_before_it_starts(run, tmp_path, monkeypatch, capsys):
    folder = run(**OPTIONS)
    capsys.readouterr()
    before = (folder / "record.h5").read_bytes()
    with pytest.raises(UserError, match=r"the record may need .* TB, its checkpoints .* and .* has .* left"):
        resume(folder, {"train.steps": 10**10})
    assert "charges at 9,999,999,880 more steps" in capsys.readouterr().out
    assert (folder / "record.h5").read_bytes() == before
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 7 * 10**5, 3 * 10**5))
    with pytest.raises(UserError, match=r"the record may need .* its checkpoints"):
        train(config(train={"steps": 4}), tmp_path)
    assert not (tmp_path / "record.h5").exists()
