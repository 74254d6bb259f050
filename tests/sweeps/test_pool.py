"""A sweep on `hydra/launcher=pool`: what fails fails alone, is named, and is all that the same command does again."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

import interpreters
from fates import MODEL
from sweep_twins import NEURALMECH, SHORT, assert_same_numbers

POOL = ["-m", "hydra/launcher=pool", "hydra.launcher.n_jobs=2", "hydra.launcher.threads=1", "hydra.sweep.dir=sweep"]
FATES = ("none", "raise", "kill", "diverge", "segfault", "other")


def command(folder, *words):
    return subprocess.run([*NEURALMECH, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=500)


def command_forked(folder, *words):
    process = interpreters.command(*words, cwd=folder)
    out, err = process.communicate()
    return process.returncode, out, err


def entries(folder):
    listed = json.loads((folder / "sweep/sweep.json").read_text())["jobs"]
    return {entry["number"]: entry for entry in listed}


def states(folder):
    return [entry["state"] for entry in entries(folder).values()]


def files(folder):
    """Bytes and time stamps of a job's files, but for the empty lock."""
    kept = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}


@pytest.mark.slow
def test_jobs_that_fail_fail_alone_and_only_they_are_done_again(tmp_path):
    (tmp_path / "fated.py").write_text(MODEL)
    (tmp_path / "armed").touch()
    fates = ",".join(FATES)
    own = ["model=custom", "model._target_=fated.Net", f"+model.fate={fates}", "train.steps=200", "train.verify=false"]
    words = ["train", *own, *SHORT, *POOL]
    first = command(tmp_path, *words)
    assert first.returncode == 1, first.stderr
    assert states(tmp_path) == ["done", "failed", "killed", "failed", "failed", "done"]
    said = [line for line in first.stderr.splitlines() if line.startswith("neuralmech: job ")]
    causes = {
        1: r"KeyError: missing at fated\.py:\d+",
        2: r"killed by SIGKILL",
        3: r"the loss or a charge is not finite at step \d+",
        4: r"segmentation fault \(SIGSEGV\) at fated\.py:\d+",
    }
    assert len(said) == len(causes)
    for line, (number, cause) in zip(said, causes.items(), strict=True):
        assert re.match(rf"neuralmech: job {number} \(\+model\.fate={FATES[number]}\): {cause}", line), line
    table = command(tmp_path, "analyze", "sweep", "figures=false")
    assert table.returncode == 0, table.stderr
    notes = " ".join(table.stdout.split())
    ends = ((1, "stopped: KeyError: missing;"), (2, "cut off: killed by SIGKILL"), (4, "cut off: segmentation fault"))
    for number, cause in ends:
        assert f"Note: {number}: {cause}" in notes
    assert "Note: job 3 failed: not finite at step" in notes
    assert "model.fate = none" in table.stdout or "none" in table.stdout

    done = files(tmp_path / "sweep/0") | files(tmp_path / "sweep/5")
    second = command(tmp_path, *words)  # who kills is still there
    assert second.returncode == 1
    assert "job 2 (+model.fate=kill): killed by SIGKILL" in second.stderr or states(tmp_path)[2] == "done"
    assert second.stderr.count("): failed before, and sweep.retry=true tries it again: ") == 3
    (tmp_path / "armed").unlink()
    third = command(tmp_path, *words)
    assert states(tmp_path) == ["done", "failed", "done", "failed", "failed", "done"]
    assert third.stderr.count("): failed before, and sweep.retry=true tries it again: ") == 3
    last = command(tmp_path, *words, "sweep.retry=true")
    assert last.returncode == 0, last.stderr
    assert states(tmp_path) == 6 * ["done"]
    assert files(tmp_path / "sweep/0") | files(tmp_path / "sweep/5") == done
    for number in (1, 2, 3, 4, 5):  # they were interrupted by all that can be, and differ in nothing else
        assert_same_numbers(tmp_path / "sweep/0", tmp_path / f"sweep/{number}")
    shown = command(tmp_path, "sweep", "sweep")
    assert shown.returncode == 0
    assert "6 jobs, 6 done" in shown.stdout
    assert not [*tmp_path.rglob("failed.txt")]


def test_the_traceback_of_an_error_is_in_a_file_that_a_line_names(tmp_path):
    """An error of the user's own code, which nobody foresaw; it goes with the error."""
    (tmp_path / "fated.py").write_text(MODEL)
    (tmp_path / "armed").touch()
    own = [
        "model=custom",
        "model._target_=fated.Net",
        "+model.fate=none,raise",
        "train.steps=130",
        "train.verify=false",
    ]
    words = ["train", *own, *SHORT, *POOL, "hydra.launcher.n_jobs=1"]
    code, out, err = command_forked(tmp_path, *words)
    assert code == 1
    assert "Traceback" not in out + err
    (line,) = [line for line in err.splitlines() if line.startswith("neuralmech: job ")]
    where = re.fullmatch(r".*: KeyError: missing at fated\.py:\d+; its traceback is in (\S+)", line)[1]
    assert where == "sweep/1/traceback.txt"
    trace = (tmp_path / where).read_text()
    assert trace.startswith("Traceback (most recent call last)")
    assert re.search(r'fated\.py", line \d+, in forward\n', trace)
    assert not (tmp_path / "sweep/0/traceback.txt").exists()
    assert "failed before" in command_forked(tmp_path, *words)[2]
    assert (tmp_path / where).exists()
    (tmp_path / "armed").unlink()
    assert command_forked(tmp_path, *words, "sweep.retry=true")[0] == 0
    assert not (tmp_path / where).exists()


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on_to_the_bits_of_one_that_was_not(tmp_path):
    words = ["train", "model=mlp", "model.width=6", "seed=0,1,2", "train.steps=4000", *SHORT, *POOL]
    child = subprocess.Popen([*NEURALMECH, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 200
    while not all(len([*(tmp_path / f"sweep/{n}/checkpoints").glob("*.pt")]) > 2 for n in (0, 1)):
        assert time.monotonic() < end
        assert child.poll() is None
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=200)
    assert child.returncode == 130
    assert "goes on with this job and those after it" in err
    assert states(tmp_path) == ["stopped", "stopped", "waiting"]
    shown = command(tmp_path, "sweep", "sweep")
    assert "2 stopped" in shown.stdout
    again = command(tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert states(tmp_path) == 3 * ["done"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = ["train", "-m", *words[1 : -len(POOL)], "hydra.sweep.dir=twin"]
    twin = subprocess.run([*NEURALMECH, *alone], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert twin.returncode == 0
    for number in range(3):
        assert_same_numbers(tmp_path / f"sweep/{number}", tmp_path / f"twin/{number}")
