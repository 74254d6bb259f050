"""How fast a record is analysed: 10⁵ steps of 1,000 charges under six laws, against merely reading the record.

Writes a synthetic record of plain SGD with momentum (the values are a real trajectory of the exact law), then
analyses it in a process of its own and prints charge-steps per second, the ratio and the peak memory.
"""

import argparse
import json
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


def write(folder: Path, steps: int, charges: int) -> None:
    rng = np.random.default_rng(0)
    sites = [f"site{i // 100}" for i in range(charges)]
    layout = {"scale": FamilyLayout(sites, range(charges), SIGNALS, translation=False)}
    q, p = rng.uniform(1, 2, charges), np.zeros(charges)
    with RecordWriter(folder, {"config": "{}"}, layout, BLOCK) as writer:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--charges", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, help="where the record goes (default: a temporary folder)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        write(folder, chosen.steps, chosen.charges)
        size = (folder / "record.h5").stat().st_size / 2**30
        read(folder)  # so that both find the file in the system's cache
        reading = read(folder)
        command = [sys.executable, "-c", MEASURE, str(folder), json.dumps(LAWS)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak, error, closure = json.loads(done.stdout)
    work = chosen.steps * chosen.charges * len(LAWS)
    print(f"{chosen.steps} steps x {chosen.charges} charges x {len(LAWS)} laws, record of {size:.2f} GiB")
    print(f"analysis {seconds:.1f} s, {work / seconds:.2e} charge-steps per second, peak memory {peak:.2f} GiB")
    print(f"reading {reading:.1f} s; ratio {seconds / reading:.2f}")
    print(f"discrete, broken is off by {error:.1e}, the budget closes to {closure:.1e}")


if __name__ == "__main__":
    main()
