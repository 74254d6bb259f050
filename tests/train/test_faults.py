"""Kills, signals, full disks, two processes: nothing that was committed is lost, and the run can go on."""

import ctypes
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

import interpreters
from command_line import unhurried
from conftest import config
from image_files import limited_files
from neuralmech.errors import RunError, UserError
from neuralmech.record import RecordWriter, open_record
from neuralmech.training.checkpoint import checkpoints
from neuralmech.training.loop import resume, train
from neuralmech.training.process import locked
from neuralmech.training.run import Saver
from train_twins import assert_twins, in_process, resume_there, train_there

pytestmark = pytest.mark.usefixtures("found_once")

OPTIONS = {
    "optim": {"lr": 0.05, "momentum": 0.9, "schedule": {"name": "cosine"}},
    "train": {"steps": 400, "eval_every": 50, "checkpoint": {"every": 20, "minutes": 0, "keep": 2}},
    "track": {"block": 16},
}


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def wait_for_change(path, since, child):
    wait_for(lambda: path.stat().st_mtime_ns != since or not child.is_alive())


def kill_and_resume(tmp_path, options, kills, seed):
    """Kill a run at random moments, one in three while it starts, until it was killed often enough."""
    rng, folder, killed = random.Random(seed), tmp_path / "killed", 0
    path = folder / "record.h5"
    folder.mkdir()
    child = in_process(train_there, options, folder)
    wait_for(path.exists)
    changed = reached = 0
    while killed < kills or not reached:  # a busy machine may not have committed anything at the last of them
        if killed % 3 == 0:
            child.join(rng.uniform(0, 1))
        else:
            wait_for_change(path, changed, child)
            child.join(rng.uniform(0, 0.3))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL, "the run ended before it was killed often enough"
        killed += 1
        with open_record(folder) as r:
            assert r.readable_rows() == r.rows
            assert r.steps()["step"].tolist() == list(range(r.rows))
            reached = r.rows
        changed = path.stat().st_mtime_ns
        child = in_process(resume_there, folder)
    child.kill()
    child.join()
    return folder, reached


@pytest.mark.parametrize(("kills", "steps"), [(3, 1500), pytest.param(30, 30_000, marks=pytest.mark.slow)])
def test_killed_again_and_again_then_resumed(finished, tmp_path, kills, steps):
    options = {**OPTIONS, "train": {**OPTIONS["train"], "steps": steps}}
    folder, reached = kill_and_resume(tmp_path, options, kills, seed=kills)
    assert reached > 0
    resume(folder, {})
    assert_twins(folder, finished(**options), steps)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_at_a_checkpoint(finished, tmp_path, number):
    options = {**OPTIONS, "train": {**OPTIONS["train"], "steps": 1500}}
    folder = tmp_path / "stopped"
    folder.mkdir()
    child = in_process(train_there, options, folder)
    wait_for(lambda: len(checkpoints(folder / "checkpoints")) > 1)
    os.kill(child.pid, number)
    child.join()
    assert child.exitcode == 128 + number
    with open_record(folder) as r:
        assert 0 < r.rows < 1500
        assert r.status == f"interrupted at step {r.rows}"
        assert checkpoints(folder / "checkpoints")[-1] == r.rows
    resume(folder, {})
    assert_twins(folder, finished(**options), 1500)


COMMAND = [
    sys.executable, "-m", "neuralmech", "train", "model=mlp", "model.width=6", "data=synthetic", "data.shape=[5]",
    "data.size=64", "data.batch_size=8", "device=cpu", "track.block=16", "train.checkpoint.every=20",
    "train.checkpoint.minutes=0", "hydra.run.dir=run",
]  # fmt: skip


def command(tmp_path, *words, before=None):
    done = subprocess.run(
        [*COMMAND[:4], *words] if words and words[0].startswith("resume=") else [*COMMAND, *words],
        cwd=tmp_path, capture_output=True, text=True, check=False, preexec_fn=before,
    )  # fmt: skip
    return done.returncode, done.stdout, unhurried(done.stderr)


def one_line(err):
    assert len(err.strip().splitlines()) == 1, err
    return err


@contextmanager
def started(tmp_path, *words):
    """A command that runs while the test goes on; it does not outlive it."""
    child = interpreters.command(*words, cwd=tmp_path)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def test_the_command_line_stops_and_goes_on(tmp_path):
    folder = tmp_path / "run"
    with started(tmp_path, *COMMAND[3:], "train.steps=1000000") as child:
        wait_for(lambda: len(checkpoints(folder / "checkpoints")) > 1)
        code, _, err = command(tmp_path, "resume=run")
        assert (code, "is in use by another process" in one_line(err)) == (2, True)
        child.send_signal(signal.SIGTERM)
        err = unhurried(child.communicate()[1])
        assert child.returncode == 143
    assert "neuralmech: terminated; the record holds" in one_line(err)
    kept = {p.name: p.read_bytes() for p in (folder / ".hydra").iterdir()}
    with open_record(folder) as r:
        rows = r.rows
    with started(tmp_path, "train", "resume=run") as child:
        wait_for(lambda: checkpoints(folder / "checkpoints")[-1] > rows)
        child.send_signal(signal.SIGINT)
        child.communicate()
        assert child.returncode == 130
    with open_record(folder) as r:
        assert r.rows > rows
    assert {p.name: p.read_bytes() for p in (folder / ".hydra").iterdir()} == kept
    assert {p.name for p in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("size", [340_000, 400_000])
def test_a_record_that_meets_a_full_disk(finished, tmp_path, size):
    """Files cannot grow past a size that the record reaches and checkpoints do not."""
    options = {**OPTIONS, "train": {**OPTIONS["train"], "steps": 1500}}
    folder = tmp_path / "full"
    folder.mkdir()
    for start in (lambda: train(config(**options), folder), lambda: resume(folder, {})):
        with limited_files(size), pytest.raises(RunError, match=r"record.h5: File too large; what was committed is"):
            start()
        with open_record(folder) as r:
            assert r.readable_rows() == r.rows > 0
    resume(folder, {})
    assert_twins(folder, finished(**options), 1500)


def test_a_checkpoint_that_meets_a_full_disk(tmp_path, monkeypatch, finished):
    """A folder that takes no more: the temporary file is gone, the checkpoint before is there, and so on."""
    real, count = os.fsync, iter(range(10**6))
    folder = tmp_path / "full"
    folder.mkdir()

    def fsync(handle):
        if next(count) > 30:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(RunError, match="No space left on device; what was committed is safe"):
            train(config(**OPTIONS), folder)
    assert not list(folder.rglob("*.tmp"))
    resume(folder, {})
    assert_twins(folder, finished(**OPTIONS), 400)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.slow
@pytest.mark.parametrize(("size", "steps"), [("700k", 300), ("1m", 600), ("2m", 900)])
def test_a_small_file_system(tmp_path, monkeypatch, size, steps):
    """Checkpoints, all of them kept, fill what the record leaves, on a disk that had room when the run began."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("no mounts here")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 10**9))
    saved = {"every": 5, "minutes": 0, "keep": None}
    folder = tmp_path / "run"
    folder.mkdir()
    try:
        with pytest.raises(RunError, match="No space left on device; what was committed is safe"):
            train(config(train={"steps": steps, "checkpoint": saved}), folder)
        with open_record(folder) as r:
            assert r.readable_rows() == r.rows
        subprocess.run(["mount", "-o", "remount,size=64m", tmp_path], check=True)
        resume(folder, {})
        with open_record(folder) as r:
            assert r.rows == steps
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("delay", [0.0, *(pytest.param(d, marks=pytest.mark.slow) for d in (0.4, 1.2))])
def test_ctrl_c_while_the_workers_start(tmp_path, delay):
    """The whole process group gets it, as from a terminal; the workers' server needs seconds to import torch."""
    words = [*COMMAND[3:], "data.residency=loader", "data.workers=1", "train.steps=1000000", "train.eval_every=0"]
    child = interpreters.command(*words, cwd=tmp_path, start_new_session=True)
    try:
        wait_for((tmp_path / "run/checkpoints/step-00000000.pt").exists)
        time.sleep(delay)
        os.killpg(child.pid, signal.SIGINT)
        err = unhurried(child.communicate(timeout=60)[1])
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert "interrupted; the record holds" in one_line(err)
    with open_record(tmp_path / "run") as r:
        assert checkpoints(tmp_path / "run/checkpoints")[-1] == r.rows


@pytest.mark.parametrize(("error", "words"), [(ValueError("boom"), "ValueError: boom"), (MemoryError(), "MemoryError")])
def test_a_writer_that_dies_ends_the_run_at_once_in_one_line(tmp_path, monkeypatch, error, words):
    """At its second block; there is no third for a long time."""
    options = {**OPTIONS, "track": {"block": 16, "steps": [[0, 32], [10**6, 10**6 + 16]]}}
    long = {**options, "train": {"steps": 10**6 + 16, "eval_every": 0}}
    real, calls = RecordWriter.append, []

    def append(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise error
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "append", append)
        with pytest.raises(RunError) as caught:
            train(config(**long), tmp_path)
    said = str(caught.value)
    assert f"could not be written ({words}; traceback in" in said
    assert f"what was committed is safe: neuralmech train resume={tmp_path} continues" in said
    assert "in append" in (tmp_path / "failed.txt").read_text()
    assert caught.value.__cause__ is error
    with open_record(tmp_path) as r:
        assert r.readable_rows() == r.rows == 16


@pytest.mark.parametrize(
    ("number", "gone", "remedy"),
    [
        (errno.ENOSPC, False, "Left on device; what was committed is safe: make room, then neuralmech train resume="),
        (errno.EIO, False, "Input/output error; what was committed is safe: mend the disk, then neuralmech train"),
        (errno.ENOENT, True, "No such file or directory; the run folder was deleted or moved while the run wrote"),
    ],
)
def test_the_remedy_is_that_of_the_error(tmp_path, monkeypatch, number, gone, remedy):
    folder = tmp_path / "run"
    folder.mkdir()

    def fail(*_):
        if gone:
            shutil.rmtree(folder)
        raise OSError(number, os.strerror(number), "the file")

    monkeypatch.setattr(Saver, "save", fail)
    with pytest.raises(RunError, match=re.escape(remedy.replace("Left", "left"))):
        train(config(train={"steps": 5}), folder)


def obey_permissions():
    """Let root meet permissions like everybody else: drop CAP_DAC_OVERRIDE from what a child may have."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


def test_a_read_only_folder_is_one_line(tmp_path, run):
    folder = run(**OPTIONS)
    places = [folder, folder / "checkpoints", folder / "checkpoints/.lock", folder / "record.h5"]
    for place in places:
        place.chmod(0o555)
    try:
        code, _, err = command(tmp_path, f"resume={folder}", before=obey_permissions)
        assert (code, "Permission denied" in one_line(err)) == (2, True)
        code, _, err = command(folder, "train.steps=40", before=obey_permissions)
        assert (code, "Permission denied" in one_line(err)) == (2, True)
    finally:
        for place in places:
            place.chmod(0o755)


def test_a_folder_is_held_by_one_process(tmp_path, run):
    folder = run(**OPTIONS)
    with locked(folder), pytest.raises(UserError, match="is in use by another process that trains there"):
        resume(folder, {})
    resume(folder, {})


def test_clock_jumps_do_not_matter(tmp_path, finished, monkeypatch):
    jumps = iter(range(10**9))
    folder = tmp_path / "jumping"
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 1e9 * (-1) ** next(jumps))
        train(config(**OPTIONS), folder)
    assert_twins(folder, finished(**OPTIONS), 400)
    os.utime(folder / "record.h5", (4e9, 4e9))
    from neuralmech.record.files import quiet_copy

    assert quiet_copy(folder / "record.h5") == (folder / "record.h5").read_bytes()
