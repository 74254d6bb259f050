"""Commands end when they should, with their processes, and print without deciding; signals leave a checkpoint."""

import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

import interpreters
from command_line import unhurried
from conftest import record
from neuralmech.cli.application import Outcome
from neuralmech.compare.gather.runs import CUT_OFF, GONE, find_runs, status_of
from neuralmech.errors import UserError
from neuralmech.record import RecordError, open_record
from neuralmech.record.layout import set_status
from neuralmech.record.opening import snapshot
from neuralmech.sweeps.manifest import Manifest
from neuralmech.training.checkpoint import checkpoints
from neuralmech.training.process import SAME_SECONDS, Interrupted, Stop, locked, on_signals, until_terminated

NEURALMECH = [sys.executable, "-m", "neuralmech"]
TRAIN = [
    "train", "model=mlp", "model.width=6", "data=synthetic", "data.shape=[5]", "data.size=64",
    "data.batch_size=8", "device=cpu", "track.block=16", "train.eval_every=0", "train.checkpoint.minutes=0",
]  # fmt: skip
ENDLESS = ["train.steps=1000000", "hydra.run.dir=run"]
MINE = """
import time, torch
class Set(torch.utils.data.Dataset):
    classes = ["a", "b"]
    def __init__(self, n, slow): self.n, self.slow = n, slow
    def __len__(self): return self.n
    def __getitem__(self, i):
        time.sleep(self.slow * (0 < i < self.n - 1))
        if i == 77 and not self.slow: raise ValueError("item 77 is damaged")
        return torch.ones(4) * i, i % 2
def data(slow=0): return Set(180, slow), Set(60, slow)
"""


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@contextmanager
def started(folder, *words, **options):
    """A command in a session of its own, none of whose processes outlives the test."""
    child = interpreters.command(*words, cwd=folder, start_new_session=True, **options)
    try:
        yield child
    finally:
        for pid in of_session(child.pid):
            os.kill(pid, signal.SIGKILL)
        child.communicate()


def of_session(session):
    """Processes of a session, those of a dead parent, too; none that only waits to be reaped."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it ended
            continue
        if int(sid) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def own_data(folder, *words):
    (folder / "mine.py").write_text(MINE)
    own = ["model=mlp", "model.width=6", "train.steps=20", "data=custom", "data._target_=mine.data", "data.workers=2"]
    return ["train", *own, "hydra.run.dir=run", *words]


def test_an_item_that_raises_in_a_worker_is_one_line_and_the_end(tmp_path):
    with started(tmp_path, *own_data(tmp_path)) as child:
        err = unhurried(child.communicate(timeout=120)[1])
        assert child.returncode == 2
        wait_for(lambda: not of_session(child.pid), 10)
    named = "neuralmech: data: item 77 of the training set raises ValueError: item 77 is damaged at mine.py:9; mend it"
    assert err.startswith(named)
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_while_workers_read_for_minutes_ends_all_at_once(tmp_path, number):
    with started(tmp_path, *own_data(tmp_path, "+data.slow=0.3")) as child:
        wait_for(lambda: len(of_session(child.pid)) > 4)  # tracker, server and two workers beside it
        os.killpg(child.pid, number)
        start = time.monotonic()
        err = unhurried(child.communicate(timeout=60)[1])
        assert child.returncode == 128 + number
        wait_for(lambda: not of_session(child.pid), 10)
    assert time.monotonic() - start < 20  # a batch takes more than 50 s
    assert err in ("neuralmech: interrupted\n", "neuralmech: terminated\n")


def test_nothing_is_left_of_a_run_that_is_killed(tmp_path):
    with started(tmp_path, *TRAIN, *ENDLESS, "data.residency=loader", "data.workers=2") as child:
        wait_for(lambda: len(of_session(child.pid)) > 4)
        child.kill()
        wait_for(lambda: not of_session(child.pid), 30)


@pytest.mark.parametrize("number", [signal.SIGHUP, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_the_terminals_end_and_a_schedulers_warning_leave_a_checkpoint(tmp_path, number):
    """To all processes of a run with workers, and twice, as a kernel and a shell say it."""
    seldom = [word.replace("track.block=16", "track.block=512") for word in TRAIN]  # or nobody could read it meanwhile
    with started(tmp_path, *seldom, *ENDLESS, "data.residency=loader", "data.workers=1") as child:
        wait_for(lambda: has_rows(tmp_path / "run", 17))
        os.killpg(child.pid, number)
        os.killpg(child.pid, number)
        err = unhurried(child.communicate(timeout=60)[1])
        assert child.returncode == 128 + number
    reached = rows(tmp_path / "run")
    assert checkpoints(tmp_path / "run/checkpoints") == [0, reached]
    said = f"neuralmech: stopped by {number.name}; the record holds {reached} steps; neuralmech train resume=run"
    assert err == f"{said} continues\n"


def has_rows(folder, count):
    """Whether a record has so many; not yet, where it is not there or is being written without a pause."""
    try:
        return rows(folder) >= count
    except RecordError:
        return False


def rows(folder):
    with open_record(folder) as r:
        return r.rows


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_that_the_parent_ignores_stays_ignored(tmp_path, number):
    words = [*TRAIN, *ENDLESS, "train.checkpoint.every=16"]
    with started(tmp_path, *words, ignored=[number]) as child:
        wait_for(lambda: (checkpoints(tmp_path / "run/checkpoints") or [0])[-1] >= 16)  # older ones are removed
        child.send_signal(number)
        before = checkpoints(tmp_path / "run/checkpoints")[-1]
        wait_for(lambda: checkpoints(tmp_path / "run/checkpoints")[-1] > before + 64)
        child.terminate()
        child.communicate()
        assert child.returncode == 143


def test_one_wish_that_is_sent_twice_is_no_hurry(monkeypatch):
    now = iter([10.0, 10.1, 10.1 + 2 * SAME_SECONDS])
    monkeypatch.setattr("neuralmech.training.process.monotonic", lambda: next(now))
    stop = Stop()
    stop(signal.SIGTERM, None)
    stop(signal.SIGTERM, None)
    stop(signal.SIGHUP, None)
    with pytest.raises(KeyboardInterrupt):
        stop(signal.SIGTERM, None)
    assert stop.signal == signal.SIGTERM


def test_what_waits_for_data_does_not_keep_a_signal_waiting():
    stop = Stop()
    stop.waits = True
    with pytest.raises(Interrupted):
        stop(signal.SIGTERM, None)


def test_a_signal_that_a_library_waits_for_is_left_to_it():
    came = []
    before = signal.signal(signal.SIGUSR2, lambda *_: came.append(1))
    try:
        with until_terminated(), on_signals() as stop:
            signal.raise_signal(signal.SIGUSR2)
            signal.raise_signal(signal.SIGUSR1)
        assert (came, stop.signal) == ([1], signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def shell(folder, line):
    """Run a line of bash with `train` for the short run and `neuralmech`; exit code, stdout and stderr."""
    words = {"neuralmech": shlex.join(NEURALMECH), "train": shlex.join([*NEURALMECH, *TRAIN, "train.steps=20"])}
    text = re.sub(r"@(\w+)", lambda m: words[m[1]], line)
    done = subprocess.run(["bash", "-c", text], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout, unhurried(done.stderr)


@pytest.mark.parametrize(
    ("line", "err"),
    [
        ("set -o pipefail; @train hydra.run.dir=run | true", ""),
        pytest.param("@train hydra.run.dir=run >&-", "", marks=pytest.mark.slow),
        ("@train hydra.run.dir=run >&- 2>&- <&-", ""),
        ("@train hydra.run.dir=run >/dev/full", "neuralmech: what was printed is lost: .*No space left on device"),
        pytest.param("@train hydra.run.dir=run >/dev/full 2>/dev/full", "", marks=pytest.mark.slow),
    ],
)
def test_printing_does_not_decide_over_a_run(tmp_path, line, err):
    code, out, said = shell(tmp_path, line)
    assert (code, out) == (0, "")
    assert re.fullmatch(f"({err}.*\n)?", said), said
    with open_record(tmp_path / "run") as r:
        assert (r.rows, r.status) == (20, "complete")


@pytest.mark.slow
def test_a_sweep_goes_on_when_its_reader_is_gone(tmp_path):
    code, _, err = shell(tmp_path, "set -o pipefail; @train -m seed=0,1 hydra.sweep.dir=sweep | true")
    assert (code, err) == (0, "")
    assert [rows(tmp_path / f"sweep/{job}") for job in (0, 1)] == [20, 20]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("@neuralmech --help >/dev/full", 1),
        ("@neuralmech --version >&-", 0),
        ("set -o pipefail; @neuralmech --help | true", 0),
    ],
)
def test_text_that_is_all_there_is_fails_if_it_is_lost(tmp_path, line, code):
    found, _, err = shell(tmp_path, line)
    assert found == code
    assert ("what was printed is lost" in err) == bool(code)


def test_an_outcome_leaves_word_where_it_arrives():
    Outcome.arrived.clear()
    sent = pickle.dumps([Outcome(3, UserError("no")), Outcome(1)])
    assert Outcome.arrived == {}
    pickle.loads(sent)
    assert sorted(Outcome.arrived) == [1, 3]
    assert str(Outcome.arrived[3].error) == "no"
    stopped = pickle.loads(pickle.dumps(Interrupted(5, signal.SIGTERM, resumable=True)))
    assert (stopped.rows, stopped.signal, stopped.resumable) == (5, signal.SIGTERM, True)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_what_a_launchers_jobs_say_reaches_the_terminal(tmp_path, launcher):
    """Jobs whose data workers read, one of which fails."""
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    words = f"-m hydra/launcher={launcher} hydra.sweep.dir=sweep data.residency=loader data.workers=1 model.width=6,-3"
    code, out, err = shell(tmp_path, f"@train {words}")
    assert code == 2
    assert err.splitlines()[-1] == "neuralmech: job 1 (model.width=-3): model.width=-3 is too small; give 1 or more"
    assert "Next: neuralmech analyze sweep" in out
    assert rows(tmp_path / "sweep/0") == 20
    assert (tmp_path / "sweep/multirun.yaml").exists()
    jobs = Manifest(tmp_path / "sweep").read()
    assert [(jobs[n].state, jobs[n].folder) for n in (0, 1)] == [("done", "0"), ("failed", "1")]
    assert jobs[1].error == "model.width=-3 is too small; give 1 or more"
    assert jobs[0].seconds > 0


def test_a_process_that_may_have_no_children_reads_itself(tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    done = subprocess.run([sys.executable, "pool.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 1, 2]\n"


POOL = """
import multiprocessing, numpy, torch
from neuralmech.data.parts import Samples
from neuralmech.data.stream import read
def first(_):
    part = Samples(torch.arange(3), torch.arange(3))
    return next(read(part, [numpy.arange(3)], torch.device("cpu"), 2))[0].tolist()
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(pool.map(first, [0])[0])
"""


def test_a_run_is_alive_from_when_it_holds_its_folder_until_it_said_how_it_ended(tmp_path):
    """Before it opens its record, and between its last word and the closing of the folder."""
    record(tmp_path, np.ones((4, 3))).close()
    with h5py.File(tmp_path / "record.h5", "r+") as file:
        set_status(file, "running")
    assert find_runs(tmp_path, live=True).jobs[0].status == CUT_OFF + GONE
    with locked(tmp_path):
        assert find_runs(tmp_path, live=True).jobs[0].status == "running"
    with snapshot(tmp_path / "record.h5") as seen:
        with h5py.File(tmp_path / "record.h5", "r+") as file:
            set_status(file, "complete")
        assert (seen.status, status_of(seen)) == ("running", "complete")
