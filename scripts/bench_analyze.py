"""How fast records are analysed: one long one against merely reading it, or with ``--jobs`` sweeps of many short ones.

Writes synthetic records of plain SGD with momentum (the values are a real trajectory of the exact law). One of 10⁵
steps of 1,000 charges is analysed under six laws, in a process of its own: charge-steps per second, the ratio, and the
peak memory. ``--jobs 50 200`` makes sweeps of so many jobs of 2,000 steps of 50 charges and analyses each twice by the
command line, figures and page included: seconds, CPU seconds of all its processes, and the most that one of them took.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from neuralmech.record import RecordWriter, open_record
from neuralmech.record.schema import SIGNALS, STEP_COLUMNS, FamilyLayout

BLOCK = 256
LR, BETA, DECAY = 0.05, 0.9, 1e-3

MEASURE = """
import json, resource, sys, time
from neuralmech import analyze
start = time.perf_counter()
found = analyze(sys.argv[1], laws=json.loads(sys.argv[2]))
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
error = found.comparison.set_index("law")["error"]["discrete_broken"].max()
print(json.dumps([seconds, peak, float(error), float(found.budget["closure_error"].max())]))
"""
LAWS = ["gradient_flow", "weight_decay", "first_order_flow", "modified_flow", "discrete", "discrete_broken"]


def write(folder: Path, steps: int, charges: int, config: str = "{}", seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    sites = [f"site{i // 100}" for i in range(charges)]
    layout = {"scale": FamilyLayout(sites, range(charges), SIGNALS, translation=False)}
    q, p = rng.uniform(1, 2, charges), np.zeros(charges)
    with RecordWriter(folder, {"config": config}, layout, BLOCK) as writer:
        for start in range(0, steps, BLOCK):
            rows = min(BLOCK, steps - start)
            drive = rng.gamma(2.0, 0.5, (rows, charges))
            residual = 1e-6 * rng.normal(size=(rows, charges))
            value = np.empty((rows, charges))
            for k in range(rows):
                value[k] = q
                force = BETA * p + DECAY * q + residual[k]
                q = q - 2 * LR * force + LR**2 * drive[k]
                p = force - LR * drive[k]
            signals = {"value": value, "drive_update": drive, "drive_gradient": drive, "residual": residual}
            writer.append(_steps(start, rows), {"scale": signals})


def _steps(start: int, rows: int) -> dict[str, Any]:
    columns: dict[str, Any] = {name: np.zeros(rows, dtype=kind) for name, kind in STEP_COLUMNS.items()}
    columns["step"] = np.arange(start, start + rows)
    columns["time"] = LR * columns["step"]
    for name, value in (("lr", LR), ("momentum", BETA), ("weight_decay", DECAY)):
        columns[name] = np.full(rows, value)
    return columns


def read(folder: Path) -> float:
    """Seconds to read what the laws need."""
    start = time.perf_counter()
    with open_record(folder) as record:
        charges = record.charges("scale")
        for rows in record.blocks(BLOCK):
            for signal in ("value", "drive_update", "residual"):
                getattr(charges, signal)[rows]
    return time.perf_counter() - start


def write_sweep(folder: Path, jobs: int, steps: int, charges: int) -> None:
    """Ten seeds of settings of learning rate and weight decay; all have one trajectory's hyperparameters."""
    rates, decays, seeds = (0.01, 0.02, 0.05, 0.1, 0.2), (0.0, 1e-4, 1e-3, 1e-2), range(max(1, jobs // 20))
    settings = itertools.islice(itertools.product(rates, decays, seeds), jobs)
    for number, (rate, decay, seed) in enumerate(settings):
        config = f"{{optim: {{name: sgd, lr: {rate}, momentum: {BETA}, weight_decay: {decay}}}, seed: {seed}}}"
        (folder / str(number)).mkdir(parents=True)
        write(folder / str(number), steps, charges, config, number)


def analysed(folder: Path, words: list[str]) -> str:
    """What it takes to analyse a sweep by the command line."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "neuralmech", "analyze", str(folder), *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, code, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"analyze ended with exit code {process.returncode}")
    seconds, cpu = time.perf_counter() - start, used.ru_utime + used.ru_stime
    return f"{seconds:6.1f} s, {cpu:6.1f} CPU s, peak memory of a process {used.ru_maxrss / 2**20:.2f} GiB"


def bench_sweeps(sizes: list[int], steps: int, charges: int, words: list[str], place: Path | None) -> None:
    for jobs in sizes:
        with tempfile.TemporaryDirectory(dir=place) as name:
            folder = Path(name) / "sweep"
            write_sweep(folder, jobs, steps, charges)
            print(f"{jobs} jobs of {steps} steps x {charges} charges, all laws {' '.join(words)}")
            print(f"  first  {analysed(folder, words)}")
            print(f"  again  {analysed(folder, words)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="of a record (default: 100000; with --jobs 2000)")
    parser.add_argument("--charges", type=int, help="of a record (default: 1000; with --jobs 50)")
    parser.add_argument("--jobs", type=int, nargs="+", help="sizes of sweeps to analyse, instead of one record")
    parser.add_argument("--words", nargs="+", default=[], help="of the sweeps' analysis, such as jobs=1 figures=false")
    parser.add_argument("--folder", type=Path, help="where the record goes (default: a temporary folder)")
    chosen = parser.parse_args()
    if chosen.jobs:
        bench_sweeps(chosen.jobs, chosen.steps or 2_000, chosen.charges or 50, chosen.words, chosen.folder)
    else:
        bench_record(chosen.steps or 100_000, chosen.charges or 1_000, chosen.folder)


def bench_record(steps: int, charges: int, place: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        write(folder, steps, charges)
        size = (folder / "record.h5").stat().st_size / 2**30
        read(folder)  # so that both find the file in the system's cache
        reading = read(folder)
        command = [sys.executable, "-c", MEASURE, str(folder), json.dumps(LAWS)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak, error, closure = json.loads(done.stdout)
    work = steps * charges * len(LAWS)
    print(f"{steps} steps x {charges} charges x {len(LAWS)} laws, record of {size:.2f} GiB")
    print(f"analysis {seconds:.1f} s, {work / seconds:.2e} charge-steps per second, peak memory {peak:.2f} GiB")
    print(f"reading {reading:.1f} s; ratio {seconds / reading:.2f}")
    print(f"discrete, broken is off by {error:.1e}, the budget closes to {closure:.1e}")


if __name__ == "__main__":
    main()
