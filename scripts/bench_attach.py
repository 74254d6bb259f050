"""What `neuralmech.attach` adds to a training loop of one's own: the same loop with and without, side by side."""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_track import CASES, Case, Ours, Plain, environment, ratio, timed

import neuralmech

PAGE = Path(__file__).resolve().parents[1] / "docs/benchmarks_attach.md"
NEVER = 10**9
LIMIT = 1.10
HEAD = """# What attaching costs

Made by `python scripts/bench_attach.py`. {environment}.

(a) the plain PyTorch loop of [the benchmarks](benchmarks.md), with `torch.optim.SGD` (momentum, weight decay) or fused
`AdamW`; (f) the same loop with `neuralmech.attach`, which records every charge of every family at every step. Ratios of
the time per step within one round: median and quartiles over the rounds. *said* is what the hooks measure of
themselves, relative to the rest of their loop, which is what the closing line says of a loop that runs alone. CUDA: not
measured, unless the line above names a GPU.

| case | charges | a, ms | f/a | said | f/a ≤ 1.10 |
| --- | --- | --- | --- | --- | --- |
"""
REMARKS = """
Of SGD (no Nesterov, one learning rate) and Adam on the CPU, θ_{{k+1}}, the gradient and Adam's moments are summed
where the loop has them, in one pass, which copies θ_{{k+1}} for the next step; before each step every parameter is held
against that copy, for whoever moved it in between. Both go at the speed of memory: of VGG-16's 537 MB they read three
and write one in the pass, and read two before it, which takes 70 ms at the 46 GB/s that a plain copy has on the machine
of this table: a tenth of its step, below which no exact record comes there. Under Adam every 16th row is measured out
of whole vectors, for how far the rule leans on generators. Other rules, and GPUs, copy θ_k, gradient and θ_{{k+1}} side
by side first.

A step of a millisecond notices Python: some twenty questions to each parameter and its gradient (is it there, of what
type and shape, where) take 40 µs in all if they are asked again and again, and 115 µs between two steps of the conv
net, which leave nothing of them in the caches.

*said* counts the time between entry and exit of the hooks. What it leaves out, taken apart on the conv net, where
f/a − 1 is 16 % and *said* 9 %: hooks that do nothing cost 1 to 2 %, the thread that writes the record 1 to 2 %, and the
rest is what the loop finds cold in the caches behind them. One thread or two, and whether OpenMP's threads spin or
sleep (OMP_WAIT_POLICY), make no difference.
"""


def measure(case: Case, folder: Path) -> dict[str, Any]:
    ours = Ours(case, NEVER, folder / "b")
    plain, attached = Plain(ours.run, case.rule), Plain(ours.run, case.rule)
    x, _ = ours.run.batches(0)
    with contextlib.redirect_stdout(io.StringIO()):
        tracking = neuralmech.attach(attached.model, attached.optimizer, folder / "f", (x,), verify=False)
        variants = {"a": plain, "f": attached}
        for variant in variants.values():
            timed(variant, 2)
        times: dict[str, list[float]] = {name: [] for name in variants}
        before = tracking.seconds
        for k in range(case.rounds):
            for name in ("a", "f") if k % 2 else ("f", "a"):
                times[name].append(timed(variants[name], case.steps))
        said = tracking.seconds - before
        tracking.close()
    ours.record.close()
    charges = sum(len(family) for family in tracking.symmetries.families.values())
    of_loop = case.steps * sum(times["f"]) - said  # the other loop's time is not the attached one's
    return {"times": times, "charges": charges, "share": said / of_loop}


def row(case: Case, found: dict[str, Any]) -> str:
    times = found["times"]
    middle = float(np.median(np.array(times["f"]) / np.array(times["a"])))
    verdict = "met" if middle <= LIMIT else f"missed by {100 * (middle / LIMIT - 1):.0f} %"
    cells = [
        case.title,
        f"{found['charges']:,}",
        f"{1e3 * np.median(times['a']):.3g}",
        ratio(times, "f", "a"),
        f"{found['share']:.1%}",
        verdict,
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=["mlp", "digits", "transformer", "vgg32", "transformer-adamw"])
    parser.add_argument("--write", action="store_true", help="write the page")
    given = parser.parse_args()
    rows = []
    for name in given.cases:
        folder = Path(tempfile.mkdtemp())
        try:
            rows.append(row(CASES[name], measure(CASES[name], folder)))
            print(rows[-1], flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if given.write:
        text = HEAD.format(environment=environment()) + "\n".join(rows) + "\n" + REMARKS.format()
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
