"""Jobs under submitit: the script that SLURM gets, and a job that is handed in again once its checkpoint is saved."""

import os
import re
import signal
import subprocess
import time

import pytest

from neuralmech.sweeps.manifest import Manifest
from neuralmech.training.process import on_signals, until_terminated
from sweep_twins import NEURALMECH, SHORT, assert_same_numbers

BATCH = """#!/bin/sh
cp "$1" {there}/script.sh
exit 1
"""


def test_the_handler_of_who_hands_jobs_in_again_comes_last():
    came = []

    class Handler:
        def checkpoint_and_try_requeue(self, number, frame):
            came.append((number, frame))

    before = signal.signal(signal.SIGUSR2, Handler().checkpoint_and_try_requeue)
    try:
        with until_terminated(), on_signals() as stop:
            signal.raise_signal(signal.SIGUSR2)
            assert came == []
            assert stop.signal == signal.SIGUSR2
        assert came == [(signal.SIGUSR2, None)]
        with on_signals():
            pass
        assert len(came) == 1
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_the_script_asks_for_a_gpu_an_array_and_a_warning(tmp_path):
    """The programs of SLURM are ones that keep what they are given."""
    pytest.importorskip("submitit")
    for name, text in (("sbatch", BATCH.format(there=tmp_path)), ("srun", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = [
        "train",
        "-m",
        "seed=0,1,2",
        "hydra/launcher=slurm",
        "hydra.launcher.partition=mine",
        "hydra.sweep.dir=sweep",
    ]
    subprocess.run([*NEURALMECH, *words], cwd=tmp_path, env=environment, capture_output=True, check=False)
    script = (tmp_path / "script.sh").read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, flags=re.MULTILINE))
    wanted = {
        "array": "0-2%3", "gpus-per-node": "1", "cpus-per-task": "4", "mem": "16GB", "time": "240",
        "partition": "mine", "signal": "USR2@120", "open-mode": "append", "job-name": "train",
    }  # fmt: skip
    assert {key: asked.get(key) for key in wanted} == wanted
    assert "srun" in script


def test_where_there_is_no_slurm_one_line_says_so_and_nothing_is_left(tmp_path):
    pytest.importorskip("submitit")
    words = ["train", "-m", "seed=0,1", "hydra/launcher=slurm", "hydra.sweep.dir=sweep"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    found = subprocess.run(
        [*NEURALMECH, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith("neuralmech: hydra/launcher: no job can be begun (Could not detect")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_job_that_must_give_way_saves_a_checkpoint_is_handed_in_again_and_goes_on(tmp_path):
    pytest.importorskip("submitit")
    words = ["train", "model=mlp", "model.width=6", "train.steps=4000", *SHORT, "train.checkpoint.every=0"]
    sweep = ["-m", "hydra/launcher=submitit_local", "hydra.sweep.dir=sweep", "seed=3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [*NEURALMECH, *words, *sweep], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    entry, end = None, time.monotonic() + 200
    while not (entry and (tmp_path / "sweep/0/record.h5").exists()):
        assert time.monotonic() < end
        assert child.poll() is None
        time.sleep(0.02)
        entry = Manifest(tmp_path / "sweep").read().get(0)
    time.sleep(0.5)
    os.kill(int(entry.process.rpartition(":")[2]), signal.SIGUSR2)
    _, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    logs = "".join(path.read_text() for path in (tmp_path / "sweep/.submitit").rglob("*.out"))
    assert logs.count("Starting with JobEnvironment") == 2
    at = re.search(r"Recording \d+ charges at ([\d,]+) more steps", logs)[1]  # it went on from where it was stopped
    assert 0 < int(at.replace(",", "")) < 4000
    assert Manifest(tmp_path / "sweep").read()[0].state == "done"
    twin = [*NEURALMECH, *words, "seed=3", "hydra.run.dir=twin"]
    assert subprocess.run(twin, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode == 0
    assert_same_numbers(tmp_path / "sweep/0", tmp_path / "twin")
