"""How long a start takes, beside ``python -c "import torch"``: ``python scripts/bench_start.py [--write]``.

Each is a process of its own, in turn, on one thread; the least of several rounds counts, of what the processor spent:
neighbours add to the time on the clock. ``--write`` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_track import environment

PAGE = Path(__file__).resolve().parents[1] / "docs/benchmarks.md"
ROUNDS, LIMIT = 5, 2.5
TITLE = "## A start"
TORCH = ("-c", "import torch")
CASES = {
    "`neuralmech train train.steps=10`": ("train", "train.steps=10", "device=cpu"),
    "`neuralmech symmetries model=convnet`": ("symmetries", "model=convnet"),
    "`neuralmech train train.epocs=3`, a wrong option": ("train", "train.epocs=3"),
    "`neuralmech train optim.lr=-1`, a bad value": ("train", "optim.lr=-1"),
    "`neuralmech train --help`": ("train", "--help"),
}
TEXT = """
Made by `python scripts/bench_start.py`. {environment}. Processor time of a
whole process over that of `python -c "import torch"` ({seconds:.2f} s), the least of {rounds} rounds side by side. What
a start takes beyond torch is `torch.export`, which imports the compiler; torch waits until the options are right.

| command | times `import torch` | s | ≤ {limit} |
| --- | --- | --- | --- |
"""


def seconds(arguments: tuple[str, ...], folder: str) -> float:
    """Processor time of Python with these arguments, user's and system's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    processes = {"": TORCH, **{title: ("-m", "neuralmech", *words) for title, words in CASES.items()}}
    times: dict[str, list[float]] = {title: [] for title in processes}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(ROUNDS + 1):  # the first compiles and reads the disk
            for title, arguments in processes.items():
                took = seconds(arguments, folder)
                times[title] += [took] if k else []
    least = {title: min(values) for title, values in times.items()}
    base = least.pop("")
    rows = [
        f"| {title} | {took / base:.2f} | {took:.2f} | {'met' if took <= LIMIT * base else 'missed'} |"
        for title, took in least.items()
    ]
    text = TEXT.format(environment=environment(), seconds=base, rounds=ROUNDS, limit=LIMIT) + "\n".join(rows) + "\n"
    print(text)
    if given.write:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(TITLE)
        _, mark, after = rest.partition("\n## ")
        page = f"{head.rstrip()}\n\n{TITLE}\n{text}" + (f"{mark}{after}" if mark else "")
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
