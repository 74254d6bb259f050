"""Train a tiny model for long, watch memory and step time, draw them: python scripts/soak.py [steps] [parts]."""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from stepping import after_each_step

from neuralmech.compare.show.style import COLOURS, STYLE
from neuralmech.config import resolve
from neuralmech.training import loop
from neuralmech.training.run import Run

FIGURE = Path(__file__).resolve().parents[1] / "docs/figures/soak.png"

RAW = {
    "model": {"name": "mlp", "width": 6, "depth": 2},
    "data": {"name": "synthetic", "shape": [5], "classes": 3, "size": 64, "batch_size": 8},
    "optim": {"lr": 0.01, "momentum": 0.9},
    "track": {},
    "device": "cpu",
}


def resident() -> float:
    """Memory that the process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def soak(steps: int, parts: int = 20) -> dict[str, list[float]]:
    """Memory (MB) at the end of each part of a run, and the median time of its steps (µs)."""
    train = {"steps": steps, "eval_every": steps // parts, "checkpoint": {"every": steps // parts, "minutes": 0}}
    memory, times, clock = [], [], []

    def look(run: Run) -> None:
        clock.append(perf_counter())
        if run.step % (steps // parts) == 0:
            gc.collect()
            memory.append(resident())
            times.append(1e6 * float(np.median([b - a for a, b in pairwise(clock)])))
            clock.clear()

    with tempfile.TemporaryDirectory() as folder, after_each_step(look):
        loop.train(resolve({**RAW, "train": train}), Path(folder))
    return {"memory_mb": memory, "step_us": times}


def draw(steps: int, found: dict[str, list[float]]) -> Figure:
    """Memory and step time over the run."""
    ends = np.linspace(0, steps, len(found["memory_mb"]) + 1)[1:] / 1000
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.8, 3.0), layout="constrained")
        panels = {"memory_mb": "resident memory (MB)", "step_us": "time per step (µs, median)"}
        for axes, (name, label), colour in zip(figure.subplots(1, 2), panels.items(), COLOURS, strict=False):
            axes.plot(ends, found[name], marker="o", markersize=3, color=colour)
            axes.set(xlabel="steps (thousands)", ylabel=label, ylim=(0, 1.3 * max(found[name])))
        figure.suptitle(f"{steps:,} steps, every charge recorded at every step", fontsize=10)
    return figure


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    steps = words[0] if words else 200_000
    found = soak(steps, words[1] if len(words) > 1 else 20)
    print(json.dumps({name: [round(v, 1) for v in values] for name, values in found.items()}, indent=2))
    draw(steps, found).savefig(FIGURE, dpi=150)
    print(f"memory grew by {found['memory_mb'][-1] - found['memory_mb'][1]:.1f} MB after the first tenth")
