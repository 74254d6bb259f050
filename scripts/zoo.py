"""Find and verify the symmetries of well-known models; write docs/zoo.md.

Random weights, small inputs, no downloads. ``python scripts/zoo.py`` does every model that has no row in
outputs/zoo/ yet (``--redo``: all of them), each in a process of its own with limits of time and memory, so that one
which crashes or hangs costs a line; ``--only NAME ...`` does those again and prints them. The page is made of all rows.
"""

import argparse
import os
import signal
import time
import warnings
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import zoo_transformers
import zoo_vision
from torch import nn
from zoo_page import cells, page
from zoo_row import NAMES, ROOT, ROWS, examine, file_of, read, save

from neuralmech.discovery.discover import find_symmetries

TARGET = ROOT / "docs" / "zoo.md"
WORKERS = 2  # models at a time, each on one thread
PATIENCE = 600  # seconds on the clock
ENDS = {-signal.SIGXCPU: "out of time", -signal.SIGKILL: "killed (memory)", -signal.SIGSEGV: "crash"}


def run(names: list[str]) -> Iterator[dict[str, Any]]:
    """Examine each model in a process of its own, forked from this one; yield the rows, which say what ended them."""
    waiting, running = list(names), dict[BaseProcess, tuple[str, float]]()
    while waiting or running:
        while waiting and len(running) < WORKERS:
            file_of(waiting[0]).unlink(missing_ok=True)
            process = get_context("fork").Process(target=examine, args=(waiting[0],))
            process.start()
            running[process] = (waiting.pop(0), time.monotonic())
        wait([process.sentinel for process in running], timeout=1)
        for process, (name, start) in list(running.items()):
            if hangs := time.monotonic() - start > PATIENCE:
                process.kill()
            if hangs or not process.is_alive():
                process.join()
                del running[process]
                yield _ended(name, "hangs" if hangs else _why(process.exitcode or 0))


def _why(code: int) -> str:
    return ENDS.get(code, f"exit code {code}")


def _ended(name: str, how: str) -> dict[str, Any]:
    row = read(name) or {"name": name, "stage": "building"}
    if row["stage"] != "done" and "error" not in row:
        row["error"] = how
        save(row)
    return row


def _prepare() -> None:
    """Load once what every model needs, for the forks."""
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    zoo_transformers.case("llama")
    zoo_vision.timm("vit_tiny_patch16_224")
    zoo_vision.segmentation("Unet")
    find_symmetries(nn.Linear(2, 2), torch.randn(2, 2))  # and no gradient: autograd then refuses to work in a fork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="models to do again: names, or library/name")
    parser.add_argument("--redo", action="store_true", help="do every model again")
    parser.add_argument("--page", action="store_true", help="only write the page from the rows that there are")
    chosen = parser.parse_args()
    ROWS.mkdir(parents=True, exist_ok=True)
    todo = [n for n in NAMES if chosen.only is None or n in chosen.only or n.partition("/")[2] in chosen.only]
    if not todo:
        parser.error(f"--only: no such model; there are {', '.join(NAMES)}")
    if not (chosen.only or chosen.redo):
        todo = [] if chosen.page else [name for name in todo if read(name) is None]
    if todo:
        _prepare()
    for row in run(todo):
        false = [f"  {text}" for text in row.get("false", [])]
        print("| " + " | ".join(cells(row)) + " |", *false, sep="\n", flush=True)
    TARGET.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
