"""The training loop, top to bottom."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from tqdm import tqdm

from neuralmech.config import Config, to_yaml
from neuralmech.data import Batches, Dataset, training_batches
from neuralmech.errors import RunError, UserError
from neuralmech.losses import tally
from neuralmech.record import BackgroundWriter, RecordWriter
from neuralmech.track import Schedule, Tracker
from neuralmech.train.execute import check_execution
from neuralmech.train.flat import FlatParameters
from neuralmech.train.interrupt import Interrupted, Stop, on_signals
from neuralmech.train.kernels import choose_kernels, kernel_errors
from neuralmech.train.lock import locked
from neuralmech.train.optimizers import build_optimizer, hyperparameters
from neuralmech.train.precision import autocast
from neuralmech.train.recorded import changed_config
from neuralmech.train.restore import restore
from neuralmech.train.run import Run, Saver, save, say
from neuralmech.train.setup import Setup, choose_device, prepare, provenance

LEAST_SHARE = 0.5  # of its size that a record may keep when it is compressed
SLOW_SECONDS = 10.0  # of waiting for the disk, after which the run says so
COMMIT_SECONDS = 60.0  # a slow run commits incomplete blocks this often


@dataclass(frozen=True)
class Result:
    """How a run ended: rows in the record, last loss and accuracy on held-out data."""

    rows: int
    loss: float
    accuracy: float


def train(config: Config, folder: Path, *, resume: bool = False) -> Result:
    """Train as configured; write ``record.h5`` and ``checkpoints/`` into `folder`, or continue what is there.

    Raises
    ------
    UserError
        If the config cannot be run, or another process trains there; nothing is written then.
    RunError
        If the loss stops being finite, or disk or GPU are full; the rows before that are in the record.
    Interrupted
        On Ctrl-C or SIGTERM; the rows up to there are in the record, and there is a checkpoint.
    """
    run = begin(config)
    if not resume:
        _announce(run, folder)
    with (
        locked(folder),
        closing(run.batches),
        on_signals() as stop,
        (_continued if resume else _new)(run, folder) as writer,
        BackgroundWriter(writer) as record,
        _disk_errors(record),
        kernel_errors(),
    ):
        saver = Saver(config.train.checkpoint, folder / "checkpoints")
        if run.step == 0:
            save(run, record, folder / "checkpoints")
        _advance(run, record, saver, stop)
        return _finish(run, record, saver)


def resume(folder: Path, changes: Mapping[str, Any]) -> Result:
    """Continue a run as if it had never stopped; `changes` are dotted config keys that do not matter to it.

    Raises
    ------
    UserError, RecordError
        If there is no such run, or the changes would make it another one.
    RunError, Interrupted
        As `train`.
    """
    with locked(folder):  # first of all: a record that is being written fast cannot be read
        config = changed_config(folder, changes)
    return train(config, folder, resume=True)


def begin(config: Config) -> Run:
    """Make everything that a run needs; writes nothing."""
    check_execution(config.train, choose_device(config.device))
    choose_kernels(deterministic=config.train.deterministic)
    setup = prepare(config)
    flat = FlatParameters(setup.model)
    batches = training_batches(setup.data, config.data, config.seed)
    steps = config.train.steps or max(1, round((config.train.epochs or 0) * batches.per_epoch))
    schedule = Schedule(config.track.every, config.track.steps)
    tracker = Tracker(
        setup.symmetries,
        flat.layout,
        setup.device,
        families=config.track.families,
        nesterov=config.optim.nesterov,
        noise=config.track.noise_from if config.track.noise else None,
        block=max(1, min(config.track.block, schedule.count(steps))),
        kept=config.track.signals,
        full=config.track.full,
        dtype=flat.theta.dtype,
        charges=config.track.charges,
        sample=config.track.sample,
        parameters=config.track.parameters,
        work=_sees_one_loss(setup, batches) and config.track.every == 1 and config.track.steps is None,
    )
    tracker.start(flat.theta)
    return Run(config, setup, flat, build_optimizer(flat.theta, config.optim), batches, tracker, schedule, steps)


def _sees_one_loss(setup: Setup, batches: Batches) -> bool:
    """Whether every step has the whole training set as its batch, and nothing at random."""
    drops = any(isinstance(m, _DropoutNd) and m.p > 0 for m in setup.model.modules())
    return batches.are_whole and not drops


def _announce(run: Run, folder: Path) -> None:
    """Say how much will be recorded, and refuse what does not fit on the disk."""
    rows = run.schedule.count(run.steps)
    if not rows:
        raise UserError(f"track.steps leaves nothing to record of {run.steps} steps; widen its windows")
    need, free = rows * run.tracker.bytes_per_row, shutil.disk_usage(folder).free
    charges = sum(len(layout.sites) for layout in run.tracker.layouts().values())
    print(f"Recording {charges:,} charges at {rows:,} steps: at most {_size(need)}")
    if need * (LEAST_SHARE if run.config.track.compress else 1) > free:
        raise UserError(
            f"track: the record may need {_size(need)} and {folder} has {_size(free)} left; "
            "record less by track.every, track.steps, track.signals, track.charges=site or track.families"
        )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _new(run: Run, folder: Path) -> RecordWriter:
    torch.manual_seed(run.config.seed)  # dropout draws the same whatever happened before
    run.identity = uuid4().hex
    attributes = {**provenance(run.config, run.setup.device), "run_id": run.identity}
    compress = run.config.track.compress
    return RecordWriter(folder, attributes, run.tracker.layouts(), run.tracker.block.rows, compress=compress)


def _continued(run: Run, folder: Path) -> RecordWriter:
    torch.manual_seed(run.config.seed)
    return RecordWriter.resume(folder, restore(run, folder), {"config": to_yaml(run.config)})


def _advance(run: Run, record: BackgroundWriter, saver: Saver, stop: Stop) -> None:
    """Take all steps that are left; the rows go into the record block by block."""
    every, written = run.config.train.eval_every, monotonic()
    progress = tqdm(total=run.steps, initial=run.step, unit="step", dynamic_ncols=True, disable=None)
    try:
        while run.step < run.steps and stop.signal is None:
            if saver.is_due(run.step):
                _write(run, record, progress)
                saver.save(run, record)
            if every and run.step % every == 0:
                _settle(run, record, progress)
                record.append_evaluation(run.step, *_evaluate(run))
            _step(run)
            progress.update()
            if run.tracker.is_full:
                _hand_over(run, record)
                _check_finite(run, record, progress)
            if monotonic() - written > COMMIT_SECONDS:
                _write(run, record, progress)
                record.commit()
                written = monotonic()
        _write(run, record, progress)
    except KeyboardInterrupt:  # a second signal, in the middle of a step: no state to save
        _write(run, record, progress)
        record.close(f"interrupted at step {run.step}")
        raise Interrupted(record.rows, stop.signal or signal.SIGINT) from None
    finally:
        progress.close()
    if stop.signal is not None and run.step < run.steps:
        saver.save(run, record)
        record.close(f"interrupted at step {run.step}")
        raise Interrupted(record.rows, stop.signal, resumable=True)


def _finish(run: Run, record: BackgroundWriter, saver: Saver) -> Result:
    """Save and evaluate the trained model; the checkpoint comes first, as everywhere, so that more steps can follow."""
    saver.save(run, record)
    held_out = _evaluate(run)
    record.append_evaluation(run.steps, *held_out)
    return Result(record.rows, *held_out)


def _step(run: Run) -> None:
    """One step of the optimiser, measured if the schedule wants it."""
    what = run.measured
    row = hyperparameters(run.config.optim, run.step, run.steps, run.time, run.config.data.batch_size)
    row["lr"] = run.execution.rate(row["lr"])
    x, y = run.batches(run.step)
    run.execution.take(row, x, y, what)
    run.step += 1
    run.time += row["lr"]


def _hand_over(run: Run, record: BackgroundWriter) -> None:
    """Give the pending rows to the record, which has them sooner or later; say so once if the training waits for it."""
    before = record.waited
    run.tracker.write(record, cut=run.config.train.on_nan == "stop")
    if before <= SLOW_SECONDS < record.waited:
        say(
            f"the disk is slower than training, which waits for it ({record.waited:.0f} s so far); nothing is lost: "
            "record less by track.every, track.steps, track.signals or track.charges=site"
        )


def _write(run: Run, record: BackgroundWriter, progress: tqdm) -> None:
    """The same, and wait until it has them."""
    _hand_over(run, record)
    _settle(run, record, progress)


def _settle(run: Run, record: BackgroundWriter, progress: tqdm) -> None:
    """Wait until the record has all that it was given; a row that is not finite ends the run, unless it may go on."""
    record.drain()
    _check_finite(run, record, progress)


def _check_finite(run: Run, record: BackgroundWriter, progress: tqdm) -> None:
    progress.set_postfix(loss=f"{run.tracker.block.last_loss:.4f}", refresh=False)
    broken = run.tracker.block.broken_at
    if run.config.train.on_nan == "stop" and broken is not None:
        record.close(f"not finite at step {broken}")
        raise RunError(
            f"the loss or a charge is not finite at step {broken}; "
            f"{record.path} holds the {record.rows} rows before it; lower optim.lr"
        )


@contextmanager
def _disk_errors(record: BackgroundWriter) -> Iterator[None]:
    """A disk that fails ends the run with what was committed."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            record.close("stopped: the disk failed")
        what = f"{error.filename or record.path}: {error.strerror or error}"
        raise RunError(
            f"{what}; what was committed is safe: make room, then neuralmech train resume={record.path.parent}"
        ) from error


def _evaluate(run: Run) -> tuple[float, float]:
    with autocast(run.config.train.precision, run.setup.device):
        return evaluate(run.setup.model, run.setup.data)


@torch.no_grad()
def evaluate(model: nn.Module, data: Dataset, batch: int = 1024) -> tuple[float, float]:
    """Mean loss and accuracy over the held-out targets that count, in evaluation mode."""
    model.eval()
    loss, right, counted = 0.0, 0, 0
    for x, y in data.held_out(batch):
        total, hits, count = tally(model(x), y)
        loss, right, counted = loss + total, right + hits, counted + count
    model.train()
    return loss / counted, right / counted
