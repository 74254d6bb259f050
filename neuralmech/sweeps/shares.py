"""What each of some jobs side by side gets of a machine: threads, and a GPU."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuralmech.errors import UserError
from neuralmech.machine import THREADS

GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Shares:
    """How many jobs there are at a time, threads of each, and GPUs, which they take in turn."""

    count: int
    threads: int
    gpus: tuple[str, ...] = ()

    def environment(self, place: int) -> dict[str, str]:
        """Variables for the job at a place among those side by side."""
        gpu = {GPUS: self.gpus[place % len(self.gpus)]} if self.gpus else {}
        return {THREADS: str(self.threads), **gpu}


def shares(
    n_jobs: Any, threads: Any, jobs: int, gpus: Sequence[str], cores: int, environment: Mapping[str, str]
) -> Shares:
    """Divide a machine; None stands for what is usual.

    Examples
    --------
    >>> shares(None, None, 10, (), 8, {})
    Shares(count=8, threads=1, gpus=())
    >>> shares(None, None, 10, ("0", "1"), 8, {})
    Shares(count=2, threads=4, gpus=('0', '1'))
    >>> shares(3, None, 2, (), 8, {}).threads
    4

    Raises
    ------
    UserError
        If a number is none.
    """
    for key, value in (("n_jobs", n_jobs), ("threads", threads)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UserError(f"hydra.launcher.{key}={value} must be a whole number, 1 or more; null for what is usual")
    count = max(1, min(n_jobs or len(gpus) or cores, jobs))
    own = environment.get(THREADS, "")
    usual = int(own) if own.isdecimal() and int(own) else max(1, cores // count)
    return Shares(count, threads or usual, tuple(gpus))


def gpus(device: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """GPUs that jobs with a ``device`` may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Raises
    ------
    UserError
        If the device is one of several.
    """
    if device == "cpu":
        return ()
    found = environment.get(GPUS)
    visible = tuple(filter(None, found.split(","))) if found is not None else _listed()
    if visible and device.startswith("cuda:"):
        raise UserError(
            f"device={device} does not go with hydra/launcher=pool, where each job sees one GPU; give device=cuda, "
            f"and {GPUS} in the environment to use some of the GPUs"
        )
    return visible


def _listed() -> tuple[str, ...]:
    """Numbers of the GPUs that the driver knows; asking torch would take longer, and memory on each of them."""
    if (program := shutil.which("nvidia-smi")) is None:
        return ()
    answer = subprocess.run([program, "-L"], capture_output=True, text=True, check=False, timeout=60)
    lines = [line for line in answer.stdout.splitlines() if line.startswith("GPU ")] if answer.returncode == 0 else []
    return tuple(str(number) for number in range(len(lines)))
