"""The row of one model of the zoo: its export, discovery and check, each with a limit of time, kept as a JSON file."""

import copy
import json
import math
import os
import re
import resource
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import zoo_by_hand
import zoo_transformers
import zoo_vision
from torch import Tensor, nn

from neuralmech.discovery.discover import find_symmetries
from neuralmech.symmetry.group import Symmetries
from neuralmech.verification.sampling import Sampling
from neuralmech.verification.verify import verify

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "outputs" / "zoo"
LIBRARIES = {
    "transformers": (zoo_transformers.NAMES, zoo_transformers.case),
    "segmentation-models-pytorch": (zoo_vision.SEGMENTATION, zoo_vision.segmentation),
    "by hand": (zoo_by_hand.NAMES, zoo_by_hand.case),
    "timm": (tuple(zoo_vision.TIMM), zoo_vision.timm),
    "torchvision": (zoo_vision.TORCHVISION, zoo_vision.torchvision),
}
NAMES = tuple(f"{library}/{name}" for library, (names, _) in LIBRARIES.items() for name in names)
SAMPLED = 4  # charges per model that are checked by finite transformations and Hessian-vector products
SAMPLED_OF_LARGE = 1  # the same for more than LARGE parameters
LARGE = 50_000_000
SECONDS = 60  # of processor time for each of export and discovery
SECONDS_OF_CHECK = 300  # the same for the check, in float64
MEMORY = 16 * 2**30  # bytes of address space


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
            save(row)
            _limit_time(SECONDS_OF_CHECK if stage is _check else SECONDS)
            stage(row, model, inputs, targets)
        row["stage"] = "done"
    except Exception as error:  # noqa: BLE001  (a line of the table, whatever it is)
        row["error"] = f"{type(error).__name__}: {str(error).strip()}"
    row.pop("found", None)
    save(row)


def _limit_time(seconds: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, hard))


def save(row: dict[str, Any]) -> None:
    """Keep a row, whole or not at all."""
    file = file_of(row["name"])
    file.with_suffix(".part").write_text(json.dumps({k: v for k, v in row.items() if k != "found"}), encoding="utf-8")
    file.with_suffix(".part").replace(file)


def file_of(name: str) -> Path:
    """Where a model's row is kept."""
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
    table = verify(model, inputs, targets, found, sampling=Sampling(1, most), conditions=("exact",)).table
    row["instead"] = table["exact_cause"].iloc[0] if len(table) and table["holds"].all() else ""
    if table["exact_gradient"].isna().any():
        raise ArithmeticError("the loss is not a number on this batch")
    row |= {test: float(table[f"exact_{test}"].max()) for test in ("gradient", "finite", "hessian")}
    row["false"] = [
        f"{r['family']} {r['site']}: gradient {r['exact_gradient']:.1e}, finite {r['exact_finite']:.1e}, "
        f"Hessian {r['exact_hessian']:.1e}"
        for r in table[~table["holds"]].to_dict("records")
    ]


def read(name: str) -> dict[str, Any] | None:
    """Row of a model, if there is one."""
    file = file_of(name)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _commit() -> str:
    found = subprocess.run(
        ["git", "log", "-1", "--format=%h", "--", "neuralmech"], cwd=ROOT, capture_output=True, text=True
    )
    return f"commit {found.stdout.strip()}" if found.returncode == 0 and found.stdout.strip() else "no known commit"
