"""Find and verify the symmetries of well-known models; write docs/zoo.md.

Random weights, small inputs, no downloads. ``python scripts/zoo.py`` does every model that has no row in
outputs/zoo/ yet (``--redo``: all of them), each in a process of its own with limits of time and memory, so that one
which crashes or hangs costs a line; ``--only NAME ...`` does those again and prints them. The page is made of all rows.
"""

import argparse
import copy
import dataclasses
import json
import math
import os
import platform
import re
import resource
import signal
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import zoo_by_hand
import zoo_transformers
import zoo_vision
from torch import Tensor, nn

from neuralmech.symmetry.conditions import Condition, condition
from neuralmech.symmetry.discover import find_symmetries
from neuralmech.symmetry.epsilon import WithoutEpsilon
from neuralmech.symmetry.group import FAMILIES, Symmetries
from neuralmech.symmetry.probe import Probe
from neuralmech.symmetry.sampling import choose
from neuralmech.symmetry.verdict import measure
from neuralmech.symmetry.verify import verify

ROOT = Path(__file__).parents[1]
TARGET, ROWS = ROOT / "docs" / "zoo.md", ROOT / "outputs" / "zoo"
LIBRARIES = {
    "transformers": (zoo_transformers.NAMES, zoo_transformers.case),
    "timm": (tuple(zoo_vision.TIMM), zoo_vision.timm),
    "segmentation-models-pytorch": (zoo_vision.SEGMENTATION, zoo_vision.segmentation),
    "by hand": (zoo_by_hand.NAMES, zoo_by_hand.case),
    "torchvision": (zoo_vision.TORCHVISION, zoo_vision.torchvision),
}
NAMES = tuple(f"{library}/{name}" for library, (names, _) in LIBRARIES.items() for name in names)
SAMPLED = 4  # charges per model that are checked by finite transformations and Hessian-vector products
SAMPLED_OF_LARGE = 1  # the same for more than LARGE parameters
LARGE = 50_000_000
WORKERS = 2  # models at a time, each on one thread
SECONDS = 60  # of processor time for each of export, discovery and check
PATIENCE = 600  # seconds on the clock
ENDS = {-signal.SIGXCPU: f"more than {SECONDS} s", -signal.SIGKILL: "killed (memory)", -signal.SIGSEGV: "crash"}
MEMORY = 16 * 2**30  # bytes of address space
TIMES, MORE = 3, 5  # discovery is to take at most TIMES an export and MORE seconds
TOLERANCE_FLOAT32 = 1e-4
NO_FLOAT64 = r"Double|Float|BFloat16|dtype|scalar type"
COLUMNS = (
    "model", "parameters", *FAMILIES, "covered", "gradient", "finite", "Hessian", "verdict", "export s", "discovery s",
    "in bound", "GB", "barriers, cause",
)  # fmt: skip


class Float32(Condition):
    """Float32 with norms that have no eps, for models with operations that float64 lacks."""

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Context of forward passes."""
        with WithoutEpsilon():
            yield


def examine(name: str) -> None:
    """Write the row of one model, again after each stage, so that it says how far it came."""
    torch.set_num_threads(1)  # again: the pool of threads does not survive the fork
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    nowhere = os.open(os.devnull, os.O_WRONLY)  # torch and transformers print graphs and advice
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    torch.manual_seed(0)
    library, _, short = name.partition("/")
    row: dict[str, Any] = {"name": name, "stage": "building", "commit": _commit()}
    try:
        model, inputs, targets = LIBRARIES[library][1](short)
        row["parameters"] = sum(p.numel() for p in model.parameters())
        for stage in (_export, _discover, _check):
            row["stage"] = stage.__name__.removeprefix("_")
            _save(row)
            _limit_time()
            stage(row, model, inputs, targets)
        row["stage"] = "done"
    except Exception as error:  # noqa: BLE001  (a line of the table, whatever it is)
        row["error"] = f"{type(error).__name__}: {str(error).strip()}"
    row.pop("found", None)
    _save(row)


def _limit_time() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + SECONDS, hard))


def _save(row: dict[str, Any]) -> None:
    file = _file(row["name"])
    file.with_suffix(".part").write_text(json.dumps({k: v for k, v in row.items() if k != "found"}), encoding="utf-8")
    file.with_suffix(".part").replace(file)


def _file(name: str) -> Path:
    return ROWS / f"{re.sub('[^A-Za-z0-9_-]+', '-', name)}.json"


def _export(row: dict[str, Any], model: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
    twin = copy.deepcopy(model).train()
    start = time.process_time()
    try:
        torch.export.export(twin, inputs, strict=False)
    finally:
        row["export"] = time.process_time() - start


def _discover(row: dict[str, Any], model: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
    start = time.process_time()
    found = find_symmetries(model, inputs)
    row["discovery"] = time.process_time() - start
    row["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kB → GB
    row["charges"] = {name: len(family) for name, family in found.families.items()}
    row["covered"] = found.covered_parameters() / row["parameters"]
    row["barriers"] = Counter(b.operation for b in found.barriers)
    row["found"] = found


def _check(row: dict[str, Any], model: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor) -> None:
    found: Symmetries = row["found"]
    most = SAMPLED if row["parameters"] < LARGE else SAMPLED_OF_LARGE
    try:
        table = verify(model, inputs, targets, found, sample=1, most=most, conditions=("exact",)).table
    except RuntimeError as error:
        if not re.search(NO_FLOAT64, str(error)):
            raise
        row["narrow"] = str(error).strip().splitlines()[0]
        _check_in_float32(row, model, inputs, targets, most)
        return
    if table["exact_gradient"].isna().any():
        raise ArithmeticError("the loss is not a number on this batch")
    row |= {test: float(table[f"exact_{test}"].max()) for test in ("gradient", "finite", "hessian")}
    row["false"] = [
        f"{r['family']} {r['site']}: gradient {r['exact_gradient']:.1e}, finite {r['exact_finite']:.1e}, "
        f"Hessian {r['exact_hessian']:.1e}"
        for r in table[~table["holds"]].to_dict("records")
    ]


def _check_in_float32(
    row: dict[str, Any], model: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor, most: int
) -> None:
    where = condition("fp32", model, inputs)
    narrow = Float32(**{f.name: getattr(where, f.name) for f in dataclasses.fields(where)})
    found: Symmetries = row["found"]
    sites = measure(Probe(narrow, targets, "cross_entropy", 0), found, choose(found, 1, most, 0))
    for test in ("gradient", "finite", "hessian"):
        values = [v[test] for v in sites.values() if not math.isnan(v[test])]
        row[test] = max(values, default=math.nan)
    row["false"] = [
        f"{family} {site}: gradient {v['gradient']:.1e}, finite {v['finite']:.1e} (float32)"
        for (family, site), v in sites.items()
        if v["gradient"] > TOLERANCE_FLOAT32 or v["finite"] > TOLERANCE_FLOAT32
    ]


def run(names: list[str]) -> Iterator[dict[str, Any]]:
    """Examine each model in a process of its own, forked from this one; yield the rows, which say what ended them."""
    waiting, running = list(names), dict[BaseProcess, tuple[str, float]]()
    while waiting or running:
        while waiting and len(running) < WORKERS:
            _file(waiting[0]).unlink(missing_ok=True)
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
        _save(row)
    return row


def read(name: str) -> dict[str, Any] | None:
    """Row of a model, if there is one."""
    file = _file(name)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def verdict(row: dict[str, Any]) -> str:
    """Say what came of a model in a word or two."""
    if "false" in row:
        return f"**{len(row['false'])} false**" if row["false"] else "holds" + " (float32)" * ("narrow" in row)
    return {"export": "not traced", "discover": "not found", "check": "not checked"}.get(row["stage"], "not built")


def in_bound(row: dict[str, Any]) -> bool | None:
    """Whether discovery took no longer than it may; None where there is no discovery."""
    return row["discovery"] <= TIMES * row["export"] + MORE if "discovery" in row else None


def cells(row: dict[str, Any]) -> list[str]:
    """Texts of a model's line."""
    charges, bound = row.get("charges"), in_bound(row)
    notes = [f"{op} ×{n}" for op, n in row.get("barriers", {}).items()]
    notes += [_one_line(row[key]) for key in ("narrow", "error") if key in row]
    return [
        row["name"].partition("/")[2],
        f"{row['parameters']:,}" if "parameters" in row else "–",
        *(f"{charges.get(f, 0):,}" if charges is not None else "–" for f in FAMILIES),
        f"{row['covered']:.1%}" if "covered" in row else "–",
        *(_number(row.get(test, math.nan)) for test in ("gradient", "finite", "hessian")),
        verdict(row),
        *(f"{row[stage]:.1f}" if stage in row else "–" for stage in ("export", "discovery")),
        {True: "yes", False: "**no**", None: "–"}[bound],
        f"{row['memory']:.1f}" if "memory" in row else "–",
        ", ".join(notes),
    ]


def _one_line(text: str) -> str:
    first = text.splitlines()[0]
    return (first if len(first) <= 160 else first[:157] + "...").replace("|", "\\|").replace(str(ROOT), ".")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0e}"


def page() -> str:
    """Text of docs/zoo.md, from the rows that there are."""
    rows = [row for row in map(read, NAMES) if row]
    charges = sum(n for row in rows for n in row.get("charges", {}).values())
    counts = Counter(verdict(row) for row in rows)
    late = [row["name"].partition("/")[2] for row in rows if in_bound(row) is False]
    large = [row["name"].partition("/")[2] for row in rows if row.get("memory", 0) > 2]
    made = dict.fromkeys(row.get("commit", "an earlier commit") for row in rows)
    packages = ("torch", "torchvision", "timm", "transformers", "segmentation-models-pytorch")
    lines = [
        "# Symmetries of well-known models",
        "",
        f"Made by `scripts/zoo.py` at {' and '.join(made)}: {len(rows)} models with {charges:,} charges; verdicts: "
        + ", ".join(f"{text} {n}" for text, n in counts.most_common())
        + f". Discovery takes more than {TIMES} exports and {MORE} s: {', '.join(late) or 'nowhere'}; more than 2 GB: "
        f"{', '.join(large) or 'nowhere'}.",
        "",
        "Random weights, training mode, cross-entropy; torchvision's models at full size, the others small",
        f"({zoo_vision.CLASSES} classes, images of 32×32 or 64×64; inception_v3 75×75, maxvit_t 224×224).",
        "*covered*: share of parameters in at least one charge. The check is on a random batch, in float64 with norms'",
        "eps removed: *gradient* is the largest |⟨g, ∂ψ⟩| / (|g| |∂ψ|) over all charges; *finite* and *Hessian* are",
        f"the largest violations among a random sample of {SAMPLED} charges ({SAMPLED_OF_LARGE} above {LARGE // 10**6} "
        "million parameters; – where",
        "an operation has no second derivative). A model holds if none is above 1e-9 (Hessian: 1e-6), or, where an",
        f"operation has no float64 kernel, if gradient and finite are at most {TOLERANCE_FLOAT32:.0e} in float32.",
        "*export s*: one `torch.export` alone; *discovery s*: trace and discovery, *in bound* if at most",
        f"{TIMES} times that and {MORE} s (processor time). *GB*: peak memory of the process up to there, libraries",
        "included. The last column names the operations at which",
        "symmetries end, and why something was not done.",
    ]
    for library, (names, _) in LIBRARIES.items():
        lines += ["", f"## {library[0].upper()}{library[1:]}" if library == "by hand" else f"## {library}", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
        lines += ["| " + " | ".join(cells(r)) + " |" for r in rows if r["name"] in {f"{library}/{n}" for n in names}]
    machine = ", ".join(f"{p} {version(p)}" for p in packages)
    lines += ["", f"{machine}, Python {platform.python_version()}, {platform.machine()} CPU, one thread.", ""]
    return "\n".join(lines)


def _commit() -> str:
    found = subprocess.run(
        ["git", "log", "-1", "--format=%h", "--", "neuralmech"], cwd=ROOT, capture_output=True, text=True
    )
    return f"commit {found.stdout.strip()}" if found.returncode == 0 and found.stdout.strip() else "no known commit"


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
