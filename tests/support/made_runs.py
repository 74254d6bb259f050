"""Run folders made by hand: charges that decay, a config, a status."""

import numpy as np

from neuralmech.record import RecordWriter
from neuralmech.record.schema import SIGNALS, STEP_COLUMNS, FamilyLayout

LAYOUT = {"scale": FamilyLayout(["a", "a"], [0, 1], SIGNALS, translation=False)}


def rows(start, count):
    steps = {n: np.zeros(count, dtype=d) for n, d in STEP_COLUMNS.items()}
    steps["step"] = np.arange(start, start + count)
    steps["lr"], steps["time"] = np.full(count, 0.1), 0.1 * steps["step"]
    value = np.exp(-0.01 * steps["step"])[:, None] * np.ones((1, 2))
    return steps, {"scale": {s: value if s == "value" else 0 * value for s in SIGNALS}}


def job(folder, config, status="complete", count=20):
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text(config)
    writer = RecordWriter(folder, {"config": config}, LAYOUT, 10)
    if count:
        writer.append(*rows(0, count))
    writer.close(status)


def config(lr, seed):
    return f"optim: {{lr: {lr}, momentum: 0.9}}\nseed: {seed}\n"


# A process that writes 10 rows of a run and waits until somebody has seen them, five times.
WRITE = """
import sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from made_runs import LAYOUT, rows
from neuralmech.record import RecordWriter
writer = RecordWriter(Path(sys.argv[1]), {"config": ""}, LAYOUT, 10)
print("open", flush=True)
time.sleep(0.2)
for k in range(5):
    writer.append(*rows(10 * k, 10))
    while not Path(sys.argv[2], f"seen{10 * k + 10}").exists():
        time.sleep(0.02)
writer.close()
"""
