"""The disk under a run: how much will be written, and what ends a run that cannot write."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neuralmech.errors import RunError, UserError
from neuralmech.record import FAILURE_FILE, FILE_NAME, BackgroundWriter
from neuralmech.record.files import FULL, write_whole
from neuralmech.record.layout import largest_record, whole_chunks
from neuralmech.record.schema import NORMS
from neuralmech.record.writer import SLACK_BYTES
from neuralmech.training.checkpoint import checkpoints
from neuralmech.training.run import Run
from neuralmech.words import byte_count, kind_and_line, override_word

LEAST_SHARE = 0.5  # of its size that a record may keep when it is compressed
ENTRY_BYTES = 1 << 10  # what a checkpoint's archive takes for a tensor besides its numbers


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
    record, kept = charges + rest, run.config.train.checkpoint.keep
    path = folder / FILE_NAME
    there = path.stat().st_size if path.is_file() else 0
    copied = there - whole_chunks(path, run.schedule.count(run.step)) if there else 0  # with what was cut off
    one = largest_checkpoint(run, rest) + copied
    saved = one * _checkpoints(run, folder)
    free = shutil.disk_usage(folder).free
    if kept is not None:  # those that are there make way
        free += sum(p.stat().st_size for p in folder.glob("checkpoints/step-*"))
    width = sum(len(layout.sites) for name, layout in run.tracker.layouts().items() if name != NORMS)
    print(
        f"Recording {width:,} charges at {rows:,} {'more ' if run.step else ''}steps: at most {byte_count(record)}"
        f"{f' besides the {byte_count(there)} that are there' if there else ''}"
        f"{', not counting compressed blocks that are written again each minute' if run.config.track.compress else ''}"
        f"; and {byte_count(saved)} of checkpoints{_by_time(run, one)}"
    )
    least = charges * (LEAST_SHARE if run.config.track.compress else 1) + rest + saved + SLACK_BYTES
    if least > free:
        raise UserError(
            f"track: the record may need {byte_count(record)}, its checkpoints {byte_count(saved)}, and {folder} has "
            f"{byte_count(free)} left; record less by track.every, track.steps, track.signals, track.charges=site or "
            "track.families, or keep fewer by train.checkpoint.keep"
        )


def largest_checkpoint(run: Run, skeleton: int) -> int:
    """Bytes that a checkpoint takes at most.

    It has the model, the optimiser's state, the last measured mean and noise, the rows that wait for their block to
    fill, and beside it what holds the record together, of so many bytes: all of the file but its chunks.
    """
    config, theta = run.config, run.flat.theta
    states = run.rule.numbers_kept + 1
    entries = list(run.setup.model.state_dict().values())
    tensors = sum(t.numel() * t.element_size() for t in entries) + states * theta.numel() * theta.element_size()
    waiting = (run.tracker.block.rows + (config.track.noise > 0)) * run.tracker.bytes_per_row
    return tensors + waiting + 3 * skeleton + ENTRY_BYTES * (len(entries) + 64)


def _checkpoints(run: Run, folder: Path) -> int:
    """How many stand beside each other at most, or, if all are kept, are written from here on but by the minute."""
    chosen = run.config.train.checkpoint
    due = 2 + (run.steps // chosen.every - run.step // chosen.every if chosen.every else 0)
    if chosen.keep is None:
        return due
    most = chosen.keep + 2  # the first, and one that is being written
    return most if chosen.minutes else min(most, due + len(checkpoints(folder / "checkpoints")))


def _by_time(run: Run, one: int) -> str:
    """What nobody can count beforehand."""
    chosen = run.config.train.checkpoint
    every = f"{chosen.minutes:g} minutes" if chosen.minutes != 1 else "minute"
    return f", besides {byte_count(one)} each {every}" if chosen.keep is None and chosen.minutes else ""


@contextmanager
def told(record: BackgroundWriter) -> Iterator[None]:
    """A disk that fails, or the thread that writes, ends the run with what was committed.

    Raises
    ------
    RunError
        In place of either.
    """
    folder = record.path.parent
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            record.close("stopped: the disk failed")
        what = f"{error.filename or record.path}: {error.strerror or error}"
        raise RunError(f"{what}; {_remedy(error, folder)}") from error
    except Exception as error:
        if error is not record.error:
            raise
        with suppress(Exception):
            record.close("stopped: the record could not be written")
        reason = "; ".join([kind_and_line(error), *_save_traceback(error, folder)])
        raise RunError(
            f"{record.path} could not be written ({reason}); "
            f"what was committed is safe: neuralmech train {override_word('resume', folder)} continues"
        ) from error


def _remedy(error: OSError, folder: Path) -> str:
    """What to do about a disk that failed."""
    if not folder.exists():
        return "the run folder was deleted or moved while the run wrote to it; start again, or resume= where it is now"
    what = "make room" if error.errno in FULL else "mend the disk"
    return f"what was committed is safe: {what}, then neuralmech train {override_word('resume', folder)}"


def _save_traceback(error: Exception, folder: Path) -> list[str]:
    """Leave the traceback beside the record; returns where, if the disk takes it."""
    path = folder / FAILURE_FILE
    with suppress(OSError):
        write_whole(path, "".join(traceback.format_exception(error)).encode(errors="replace"))
        return [f"traceback in {path}"]
    return []
