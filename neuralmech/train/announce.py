"""Say before a run starts how much it will write, and refuse what does not fit on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from neuralmech.errors import UserError
from neuralmech.record.size import largest_record
from neuralmech.record.writer import SLACK_BYTES
from neuralmech.train.run import Run

LEAST_SHARE = 0.5  # of its size that a record may keep when it is compressed
ENTRY_BYTES = 1 << 10  # what a checkpoint's archive takes for a tensor besides its numbers
STATES = {"adam": 2, "adamw": 2}  # numbers that an optimiser keeps for each parameter; SGD one with momentum


def announce(run: Run, folder: Path) -> None:
    """Say how much will be recorded from here on, and refuse what does not fit on the disk.

    Raises
    ------
    UserError
        If it does not fit, or there is nothing to record at all.
    """
    if not run.schedule.count(run.steps):
        raise UserError(f"track.steps leaves nothing to record of {run.steps} steps; widen its windows")
    rows = run.schedule.count(run.steps) - run.schedule.count(run.step)
    if not rows:
        return
    every, block = run.config.train.eval_every, run.tracker.block.rows
    evaluations = 1 + (-(-(run.steps - run.step) // every) if every else 0)
    charges, rest = largest_record(run.tracker.layouts(), rows + block, evaluations + block, block)
    record = charges + rest
    saved = checkpoints_size(run, rest)
    free = shutil.disk_usage(folder).free + sum(p.stat().st_size for p in folder.glob("checkpoints/step-*"))
    width = sum(len(layout.sites) for layout in run.tracker.layouts().values())
    more = "more " if run.step else ""
    print(
        f"Recording {width:,} charges at {rows:,} {more}steps: at most {size(record)}, and {size(saved)} of checkpoints"
    )
    least = charges * (LEAST_SHARE if run.config.track.compress else 1) + rest + saved + SLACK_BYTES
    if least > free:
        raise UserError(
            f"track: the record may need {size(record)}, its checkpoints {size(saved)}, and {folder} has {size(free)} "
            "left; record less by track.every, track.steps, track.signals, track.charges=site or track.families, "
            "or keep fewer by train.checkpoint.keep"
        )


def checkpoints_size(run: Run, skeleton: int) -> int:
    """Bytes that a run's checkpoints take at most; those of ``checkpoint.minutes`` only if not all are kept.

    A checkpoint has the model, the optimiser's state, the last measured gradients, the rows that wait for their block
    to fill, and beside it what holds the record together.
    """
    config, theta = run.config, run.flat.theta
    states = STATES.get(config.optim.name, int(config.optim.momentum > 0)) + 1 + (2 if config.track.noise else 0)
    entries = list(run.setup.model.state_dict().values())
    tensors = sum(t.numel() * t.element_size() for t in entries) + states * theta.numel() * theta.element_size()
    waiting = run.tracker.block.rows * run.tracker.bytes_per_row
    one = tensors + waiting + 3 * skeleton + ENTRY_BYTES * (len(entries) + 64)
    kept, every = config.train.checkpoint.keep, config.train.checkpoint.every
    due = 2 + (run.steps // every if every else 0)
    return one * (due if kept is None else min(due, kept + 2) if not config.train.checkpoint.minutes else kept + 2)


def size(count: float) -> str:
    """A number of bytes for people.

    Examples
    --------
    >>> size(1234567)
    '1.23 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
