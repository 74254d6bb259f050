"""How much faster a sweep is on ``hydra/launcher=pool`` than with Hydra's own launcher: 40 small jobs, n at a time.

Both have one thread for each job, and start-up counts. The ratio is that of a machine with nothing else to do: the load
before the measurement is printed beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAUNCHERS = ("basic", "pool")


def seconds_of(launcher: str, jobs: int, steps: int, n_jobs: int, folder: Path) -> float:
    """Of a sweep as a user starts it, all of whose jobs are done at its end."""
    words = ["--multirun", "model=mlp", "model.width=64", f"train.steps={steps}", "train.eval_every=0", "device=cpu"]
    words += [f"seed=range({jobs})", f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder / launcher}"]
    if launcher == "pool":
        words.append(f"hydra.launcher.n_jobs={n_jobs}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "neuralmech", "train", *words], check=True, stdout=subprocess.DEVNULL, env=environment
    )
    seconds = time.perf_counter() - start
    states = [job["state"] for job in json.loads((folder / launcher / "sweep.json").read_text())["jobs"]]
    assert states == jobs * ["done"], states
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=2000, help="of each job")
    parser.add_argument("--n-jobs", type=int, default=2, help="at a time, on the pool")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    with tempfile.TemporaryDirectory() as folder:
        took = {one: seconds_of(one, chosen.jobs, chosen.steps, chosen.n_jobs, Path(folder)) for one in LAUNCHERS}
    for launcher, seconds in took.items():
        print(f"{launcher:<6}{seconds:8.1f} s  {seconds / chosen.jobs:6.2f} s a job")
    print(f"pool with n_jobs={chosen.n_jobs} is {took['basic'] / took['pool']:.2f} times as fast as basic")


if __name__ == "__main__":
    main()
