"""Runs in several processes: ``torchrun … ranks.py JOBS`` carries them out, one after the other."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]
IGNORED = -100


def labelled(count=64, classes=4):
    """Data most of whose labels do not count, so that some shares of four have none."""
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, 6, generator=source), torch.randint(classes, (count,), generator=source)
    y[torch.rand(count, generator=source) < 0.7] = IGNORED
    y[:4] = torch.arange(4)
    return x, y, x[:8], y[:8]


def pictures(count=96, classes=3):
    """Images, which may be cropped and flipped."""
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, 1, 6, 6, generator=source), torch.randint(classes, (count,), generator=source)
    y[:3] = torch.arange(3)
    return x, y, x[:8], y[:8]


def start(processes, *words, environment=None, **options):
    """Start torchrun with its processes in a session of their own, which `ended` can end as a whole."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), str(TESTS / "support"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *words],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def ended(started, seconds=120):
    """Exit code, stdout and stderr of what was started; nothing of it is left."""
    try:
        out, err = started.communicate(timeout=seconds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    return started.returncode, out, err


def together(jobs, processes=2):
    """Carry out runs, each (folder, options of a new one or None, changes of one that is resumed)."""
    listed = json.dumps([[str(folder), options, changes] for folder, options, changes in jobs])
    code, _, err = ended(start(processes, __file__, listed))
    assert code == 0, err


def _carry_out(place, jobs):
    from conftest import config
    from neuralmech.training import loop
    from neuralmech.training.together import joined

    with joined(place) as (processes, _):
        for folder, options, changes in jobs:
            if not processes.is_first:
                loop.follow(processes)
            elif options is None:
                loop.resume(Path(folder), changes, processes)
            else:
                Path(folder).mkdir()
                loop.train(config(**options), Path(folder), processes)


if __name__ == "__main__":
    from neuralmech.cli.ranks import one_of_several
    from neuralmech.training.place import placed

    here = placed()
    assert here is not None
    one_of_several(here, lambda: _carry_out(here, json.loads(sys.argv[1])))
