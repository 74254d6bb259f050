"""What tracking costs: a plain loop, ours without and with every charge recorded at every step, and common habits.

All variants of a case run interleaved in one process on the same batches; what is compared are ratios of the same
round, so that a busy machine disturbs both sides. Results go to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import io
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuralmech.config import resolve
from neuralmech.record import BackgroundWriter, RecordWriter
from neuralmech.training import loop
from neuralmech.training.begin import begin
from neuralmech.training.run import Run

PAGE = Path(__file__).resolve().parents[1] / "docs/benchmarks.md"
OFTEN, NEVER = 1, 10**9
VGG = {"name": "torchvision", "arch": "vgg16"}


@dataclass(frozen=True)
class Case:
    """A model and its data: steps per round, rounds."""

    title: str
    model: dict[str, Any]
    data: dict[str, Any]
    steps: int
    rounds: int
    tracking: float = 1.05  # what c/b may be on a CPU
    loop: float = 1.0  # and c/a
    rule: str = "sgd"


# A rule's options, and PyTorch's optimiser as people write it.
RULES: dict[str, tuple[dict[str, Any], Callable[[Any], torch.optim.Optimizer]]] = {
    "sgd": (
        {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
        lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9, weight_decay=5e-4),
    ),
    "adamw": (
        {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
        lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=0.01, fused=True),
    ),
}


def images(size: int, batch: int, classes: int) -> dict[str, Any]:
    return {"name": "synthetic", "shape": [3, size, size], "classes": classes, "size": 4 * batch, "batch_size": batch}


CASES = {
    "mlp": Case(
        "MLP 784-100×5-10, batch 128",
        {"name": "mlp", "width": 100, "depth": 6},
        {"name": "synthetic", "shape": [784], "classes": 10, "size": 2048, "batch_size": 128},
        100,
        41,
        tracking=1.10,
    ),
    "digits": Case("conv net on digits, batch 64", {"name": "convnet"}, {"name": "digits"}, 60, 41),
    "transformer": Case(
        "transformer, 10.7 million parameters, 8 × 64 tokens",
        {"name": "transformer", "width": 384, "depth": 6, "heads": 6, "context": 64},
        {"name": "tokens", "task": "markov", "length": 64, "batch_size": 8, "size": 64},
        2,
        31,
    ),
    "vgg32": Case("VGG-16, 32×32, batch 32", VGG, images(32, 32, 10), 1, 15),
    "vgg64": Case("VGG-16, 64×64, batch 128", VGG, images(64, 128, 200), 1, 5),
}
CASES |= {
    f"{name}-adamw": replace(
        CASES[name], title=f"{CASES[name].title}; AdamW (fused)", rule="adamw", tracking=1.10, loop=1.05
    )
    for name in ("mlp", "transformer", "vgg32")
}


def config(case: Case, every: int):
    return resolve(
        {
            "model": dict(case.model),
            "data": dict(case.data),
            "optim": RULES[case.rule][0],
            "track": {"every": every},
            "train": {"steps": 2 + case.steps * case.rounds, "eval_every": 0},  # no chunk is then mostly empty
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        }
    )


class Ours:
    """Our own loop, writing its record into a folder."""

    def __init__(self, case: Case, every: int, folder: Path) -> None:
        self.run: Run = begin(config(case, every))
        folder.mkdir(parents=True)
        self.record = BackgroundWriter(
            RecordWriter(folder, {}, self.run.tracker.layouts(), self.run.tracker.block.rows)
        )

    def __call__(self) -> None:
        """Take a step."""
        loop.take_step(self.run, *self.run.batches(self.run.step))
        if self.run.tracker.is_full:
            self.run.tracker.write(self.record)


class Plain:
    """The loop as people write it, with `after` called on the model after every step."""

    def __init__(self, run: Run, rule: str, after: Callable[[nn.Module, int], None] | None = None) -> None:
        torch.manual_seed(0)
        self.model = begin(run.config).setup.model  # a fresh one, its parameters then on their own
        for p in self.model.parameters():
            p.data, p.grad = p.data.clone(), None
        self.batches, self.after, self.step = run.batches, after, 0
        self.optimizer = RULES[rule][1](self.model.parameters())

    def __call__(self) -> None:
        """Take a step."""
        x, y = self.batches(self.step)
        self.optimizer.zero_grad()
        logits = self.model(x)
        loss = F.cross_entropy(logits.flatten(0, -2), y.flatten())
        loss.backward()
        self.optimizer.step()
        if self.after:
            self.after(self.model, self.step)
        self.step += 1


def norms(folder: Path) -> Callable[[nn.Module, int], None] | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer = SummaryWriter(str(folder))

    def log(model: nn.Module, step: int) -> None:
        for name, p in model.named_parameters():
            writer.add_scalar(name, p.norm().item(), step)

    return log


def save(model: nn.Module, step: int) -> None:
    torch.save(model.state_dict(), io.BytesIO())


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(variant: Callable[[], None], steps: int) -> float:
    synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        variant()
    synchronize()
    return (time.perf_counter() - start) / steps


def measure(case: Case, folder: Path) -> dict[str, Any]:
    b, c = Ours(case, NEVER, folder / "b"), Ours(case, OFTEN, folder / "c")
    variants: dict[str, Callable[[], None]] = {"a": Plain(b.run, case.rule), "b": b, "c": c}
    if log := norms(folder / "tensorboard"):
        variants["d"] = Plain(b.run, case.rule, log)
    variants["e"] = Plain(b.run, case.rule, save)
    for variant in variants.values():  # warm up: caches, compiled code
        timed(variant, 2)
    times: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    for k in range(case.rounds):
        for name in order[k % len(order) :] + order[: k % len(order)]:
            steps = case.steps if name != "e" else max(1, case.steps // 20)
            times[name].append(timed(variants[name], steps))
    c.run.tracker.write(c.record)
    c.record.close()
    size = (folder / "c/record.h5").stat().st_size / c.run.step
    held = sum(p.numel() * p.element_size() for p in c.run.setup.model.state_dict().values())
    charges = sum(len(f) for f in c.run.tracker.families.values())
    b.record.close()
    return {"times": times, "bytes": size, "checkpoint": held, "charges": charges}


def peak_memory(arguments: tuple[Case, int, int]) -> float:
    """Peak memory in MB of a process that only takes some steps."""
    case, every, steps = arguments
    folder = Path(tempfile.mkdtemp())
    variant = Ours(case, every, folder / "run")
    for _ in range(steps):
        variant()
    variant.record.close()
    shutil.rmtree(folder)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ratio(times: dict[str, list[float]], above: str, below: str) -> str:
    if above not in times:
        return "not measured"
    ratios = np.array(times[above]) / np.array(times[below])
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def line(case: Case, found: dict[str, Any], memory: float) -> str:
    t = found["times"]
    median = {name: 1e3 * float(np.median(values)) for name, values in t.items()}
    cells = [
        case.title,
        f"{found['charges']:,}",
        f"{median['a']:.3g}",
        *(ratio(t, x, y) for x, y in (("b", "a"), ("c", "a"), ("c", "b"), ("d", "a"), ("e", "a"))),
        f"{found['bytes'] / 1024:,.1f}",
        f"1/{found['checkpoint'] / found['bytes']:,.0f}",
        f"{memory:.3f}",
    ]
    return "| " + " | ".join(cells) + " |"


def judged(case: Case, found: dict[str, Any], memory: float) -> str:
    """By how much a case meets or misses what we want."""

    def above(limit: float, value: float) -> str:
        percent = 100 * (value / limit - 1)
        return "met" if percent <= 0 else f"missed by {percent:.0f} %" if percent >= 1 else "missed by < 1 %"

    def median(above: str, below: str) -> float:
        return float(np.median(np.array(found["times"][above]) / np.array(found["times"][below])))

    share = 500 * found["bytes"] / found["checkpoint"]
    cells = [
        case.title,
        f"{above(case.loop, median('c', 'a'))} (≤ {case.loop:.2f})",
        f"{above(case.tracking, median('c', 'b'))} (≤ {case.tracking:.2f})",
        "met" if share <= 1 else f"{share:.0f} times too large",
        above(1.05, memory),
    ]
    return "| " + " | ".join(cells) + " |"


AIMS = """
What we want on a CPU: recording everything costs no more than the plain loop (c/a ≤ 1, and 1.05 under AdamW), hardly
more than not recording (c/b), 1/500 of the state dicts' bytes, and 5 % of memory.

| case | c/a | c/b | record ≤ 1/500 of (e) | memory c/b ≤ 1.05 |
| --- | --- | --- | --- | --- |
"""

HEAD = """# Benchmarks

Made by `make bench` (`scripts/bench_track.py`). {environment}.

(a) plain PyTorch loop with `torch.optim.SGD`, or with fused `AdamW`; (b) neuralmech without tracking; (c) neuralmech
recording every charge of every family at every step; (d) the plain loop with `norm().item()` of every parameter to
TensorBoard; (e) the plain loop with a state dict saved (to memory) after every step. All have weight decay, SGD
momentum. Ratios of the time per step within one round: median and quartiles over the rounds. Record: KiB per step on
disk, and that as a share of one state dict. Memory: peak of (c) over peak of (b), each in a process of its own. CUDA:
{cuda}.

| case | charges | a, ms | b/a | c/a | c/b | d/a | e/a | KiB/step | of (e) | memory c/b |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

REMARKS = """
On the CPU (b) and (c) take SGD's step in one compiled pass over the parameters, with the bits of PyTorch's fused SGD,
and use gradients where autograd leaves them. That is why (b) is faster than (a), whose optimiser makes several passes
over many small tensors. The sums are made in the registers of that pass. What (c) costs beyond (b), from a profile of
the MLP on one thread: 55 µs for the sums of four products over rows and columns of 119,910 parameters in float64, 25
µs from the sums to 701 charges, 30 µs for the Python around them when its code is cold. The writer's thread takes
another 75 µs of the second core per step, most of it for the first touch of memory for the disk's cache. Of a
transformer's step 5 ms go into the sums, 1 ms into the charges, every 16th step 6 ms into the Frobenius norms of 72
matrices, and the writer's thread has 1 MB to write. Steps of seconds, such as VGG-16's, vary by 10 % from round to
round, which is more than the sums of its 134 million parameters take.

Under AdamW (b) and (c) take the step of PyTorch's fused one, bit for bit, and sum eight products instead of four, w =
√v̂ + ε and m/w among them: of a 120,000-parameter MLP these sums take 170 µs, where the step alone takes 40 and the
whole of (a) not a millisecond. That is what is missed on the MLP; the fewer samples a batch has for each parameter, the
more it shows. Every 16th step measures how far the rule leans on the generators, in passes of its own (1 ms).

The record is below 1/500 of a state dict only where a model has many more parameters than charges, as VGG-16 has: 701
charges of the MLP, four float64 numbers each, are 22 kB, and 1/500 of its state dict is 1 kB. `track.charges=site`,
`track.signals` and `track.every` make it smaller.

## Soak

![Memory and step time over 200,000 steps](figures/soak.png)

`python scripts/soak.py` trains a tiny model for 200,000 steps with every charge recorded at every step, checkpoints and
evaluations in between, and draws this.
"""


def environment() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.processor() or 'CPU'}"
    return (
        f"{device}, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}, "
        f"float32"
    )


def _parts() -> tuple[str, str]:
    """The page's two tables as they are: rows of cases that are not measured again stay."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    first, _, second = text.partition("What we want on a CPU")
    return first, second


def _row(text: str, case: Case) -> str:
    return next((row for row in text.splitlines() if row.startswith(f"| {case.title} |")), "")


def main() -> None:
    parser = argparse.ArgumentParser(description="What tracking costs.")
    parser.add_argument("cases", nargs="*", help=f"out of {', '.join(CASES)} (default: all)")
    parser.add_argument("--dry", action="store_true", help="print only")
    chosen = parser.parse_args()
    cuda = "measured" if torch.cuda.is_available() else "not measured"
    head = HEAD.format(environment=environment(), cuda=cuda)
    lines, aims = ({case.title: row for case in CASES.values() if (row := _row(part, case))} for part in _parts())
    for name in chosen.cases or CASES:
        case = CASES[name]
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            steps = 300 if case.steps > 10 else 2
            without, tracked = pool.map(peak_memory, [(case, NEVER, steps), (case, OFTEN, steps)], chunksize=1)
        folder = Path(tempfile.mkdtemp())
        found = measure(case, folder)
        shutil.rmtree(folder)
        lines[case.title] = line(case, found, tracked / without)
        aims[case.title] = judged(case, found, tracked / without)
        print(lines[case.title], aims[case.title], sep="\n", flush=True)
        if not chosen.dry:
            titles = [case.title for case in CASES.values() if case.title in lines]
            first, second = ("".join(f"{of[title]}\n" for title in titles) for of in (lines, aims))
            PAGE.write_text(head + first + AIMS + second + REMARKS, encoding="utf-8")


if __name__ == "__main__":
    main()
