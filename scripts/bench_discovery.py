"""Time and memory of discovery, beside those of ``torch.export`` alone: ``python scripts/bench_discovery.py NAME ...``.

NAME is one of timm's models (``timm:nest_tiny``) or torchvision's (``torchvision:swin_t``), at full size with random
weights; no downloads. Each has a process of its own. The bound is three times the export plus 5 s, and 2 GB more than
the process had after the export. Seconds are those of the processor, on one thread, so that neighbours do not count.
"""

import copy
import os
import resource
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import nn

from neuralmech.discovery.discover import find_symmetries

NAMES = (
    "timm:nest_tiny", "timm:pit_ti_224", "timm:tnt_s_patch16_224", "timm:davit_tiny", "timm:dm_nfnet_f0",
    "timm:gmlp_ti16_224", "timm:resmlp_12_224", "timm:efficientvim_m1", "timm:crossvit_tiny_240",
    "torchvision:resnet50", "torchvision:swin_t", "torchvision:vit_b_16", "torchvision:densenet121",
)  # fmt: skip
BATCH, SLOPE, OFFSET, GIGABYTES = 2, 3, 5.0, 2.0
COLUMNS = ("model", "parameters", "export s", "discovery s", "bound s", "GB more", "within")


def model_of(name: str) -> tuple[nn.Module, torch.Tensor]:
    library, _, name = name.partition(":")
    if library == "timm":
        import timm  # pyright: ignore[reportMissingImports]

        model: Any = timm.create_model(name)
        return model, torch.randn(BATCH, *model.default_cfg["input_size"])
    from torchvision import models

    return getattr(models, name)(), torch.randn(BATCH, 3, 224, 224)


def peak() -> float:
    """Largest resident memory of this process so far, in GB."""
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def row(name: str) -> str:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x = model_of(name)
    start = time.process_time()
    torch.export.export(copy.deepcopy(model).train(), (x,), strict=False)
    export = time.process_time() - start
    before = peak()
    start = time.process_time()
    find_symmetries(model, x)
    seconds, more = time.process_time() - start, peak() - before
    bound = SLOPE * export + OFFSET
    size = sum(p.numel() for p in model.parameters())
    met = "yes" if seconds <= bound and more <= GIGABYTES else "no"
    return f"| {name} | {size:,} | {export:.1f} | {seconds:.1f} | {bound:.1f} | {more:.2f} | {met} |"


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    print("| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS), sep="\n", flush=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for line in pool.map(row, sys.argv[1:] or NAMES):
            print(line, flush=True)


if __name__ == "__main__":
    main()
