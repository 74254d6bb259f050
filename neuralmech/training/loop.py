"""The training loop, top to bottom."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from math import nan
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn, TypeVar, cast
from uuid import uuid4

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from tqdm import tqdm

from neuralmech.config import Config
from neuralmech.data import Dataset
from neuralmech.data.draws import seed_all
from neuralmech.errors import NotFiniteError, UserError
from neuralmech.loggers import Feed, opened
from neuralmech.losses import LossLike, as_loss
from neuralmech.outputs import output_of
from neuralmech.record import FILE_NAME, BackgroundWriter, RecordWriter
from neuralmech.record.files import locking_of
from neuralmech.record.safety import plain_yaml
from neuralmech.training.begin import begin
from neuralmech.training.claims import check_claims
from neuralmech.training.disk import announce, told
from neuralmech.training.finished import Result
from neuralmech.training.finite import remedy
from neuralmech.training.kernels import kernel_errors
from neuralmech.training.process import Interrupted, Stop, locked, on_signals, say
from neuralmech.training.recorded import changed_config
from neuralmech.training.restore import make_readable, restore
from neuralmech.training.run import Run, Saver, begin_together, save
from neuralmech.training.setup import provenance
from neuralmech.training.together import ALONE, Alone, LostError
from neuralmech.training.update import autocast
from neuralmech.words import short

SLOW_SECONDS = 10.0  # of waiting for the disk, after which the run says so
COMMIT_SECONDS = 60.0  # a slow run commits incomplete blocks this often
_T = TypeVar("_T")


def train(config: Config, folder: Path, processes: Alone = ALONE) -> Result:
    """Train as configured; write ``record.h5`` and ``checkpoints/`` into `folder`.

    Raises
    ------
    UserError
        If the config cannot be run, or another process trains there; nothing is written then.
    RecordError
        If there is a record already.
    RunError
        If the loss stops being finite, or disk or GPU are full; the rows before that are in the record.
    Interrupted
        On Ctrl-C, SIGTERM and the like; the rows up to there are in the record, and there is a checkpoint.
    """
    return _train(folder, config, locked(folder), processes)


def train_in(folder: Path, config: Config, processes: Alone = ALONE) -> Result:
    """`train` in a folder that this process has locked."""
    return _train(folder, config, nullcontext(), processes)


def _train(folder: Path, config: Config, in_folder: AbstractContextManager[object], processes: Alone) -> Result:
    run = begin(_told(config, processes), processes)
    with closing(run.batches):
        check_claims(run)
        announce(run, folder)
        with in_folder:
            return _carry_out(run, folder, _new)


def resume(folder: Path, changes: Mapping[str, Any], processes: Alone = ALONE) -> Result:
    """Continue a run as if it had never stopped; `changes` are dotted config keys that do not matter to it.

    Raises
    ------
    UserError, RecordError
        If there is no such run, or the changes would make it another one.
    RunError, Interrupted
        As `train`.
    """
    with locked(folder):  # first of all: a record that is being written fast cannot be read
        if (folder / FILE_NAME).is_file():
            locking_of(folder / FILE_NAME)  # nor can one that another program has open, though nothing is wrong with it
        make_readable(folder)
        config = changed_config(folder, changes)
        return _carry_out(begin(_told(config, processes), processes), folder, _continued)


def follow(processes: Alone) -> None:
    """Take the same steps as the first of several processes, which alone has a folder, measures and speaks.

    Raises
    ------
    LostError
        If another process has ended.
    Interrupted
        If a signal has stopped all of them.
    """
    run = begin(processes.tell(cast(Config, None)), processes)
    with closing(run.batches), on_signals(alone=False) as stop, kernel_errors():
        begin_together(run)
        while run.step < run.steps and not processes.stops(stop):
            take_step(run, *run.batches(run.step))
    if run.step < run.steps:
        raise Interrupted(None, stop.signal or signal.SIGINT)


def _told(config: Config, processes: Alone) -> Config:
    """Tell the other processes what to train, if they can; returns it."""
    if processes.count > 1:
        config.check_parts(processes.count)
        if config.train.cuda_graph:
            raise UserError("train.cuda_graph=true is for one process; use train.cuda_graph=false")
        processes.tell(replace(config, loss=replace(config.loss)))  # without what a loss keeps for itself
    return config


def _carry_out(run: Run, folder: Path, open_writer: Callable[[Run, Path], RecordWriter]) -> Result:
    with (
        closing(run.batches),
        on_signals(alone=run.processes.count == 1) as stop,
        open_writer(run, folder) as writer,
        _logger(run, folder) as feed,
        BackgroundWriter(writer, feed.hear if feed else None) as record,
        told(record),
        kernel_errors(),
    ):
        begin_together(run)
        saver = Saver(run.config.train.checkpoint, folder / "checkpoints")
        if run.step == 0:
            save(run, record, folder / "checkpoints")
        _advance(run, record, saver, stop)
        return _finish(run, record, saver)


def _logger(run: Run, folder: Path) -> AbstractContextManager[Feed | None]:
    """What passes rows on to an experiment tracker, if one is wanted."""
    chosen = run.config.logger
    config = {} if chosen.name == "none" else plain_yaml(run.written_config)
    feed = opened(chosen.name, folder, config, run.tracker.layouts(), chosen.every, chosen.project)
    return nullcontext() if feed is None else feed


def _new(run: Run, folder: Path) -> RecordWriter:
    seed_all(run.config.seed)  # dropout draws the same whatever happened before
    run.identity = uuid4().hex
    ran = provenance(run.config, run.setup.device, run.processes.count)
    attributes = {**ran, "run_id": run.identity, "rule": run.rule.description()}
    compress = run.config.track.compress
    return RecordWriter(folder, attributes, run.tracker.layouts(), run.tracker.block.rows, compress=compress)


def _continued(run: Run, folder: Path) -> RecordWriter:
    seed_all(run.config.seed)
    position = restore(run, folder)
    announce(run, folder)
    return RecordWriter.resume(folder, position, {"config": run.written_config, "processes": run.processes.count})


def _advance(run: Run, record: BackgroundWriter, saver: Saver, stop: Stop) -> None:
    """Take all steps that are left; the rows go into the record block by block."""
    every, written = run.config.train.eval_every, monotonic()
    progress = tqdm(total=run.steps, initial=run.step, unit="step", dynamic_ncols=True, disable=None)
    try:
        while run.step < run.steps and not run.processes.stops(stop):
            if saver.is_due(run.step):
                _write(run, record, progress)
                _save(run, record, saver)
            if every and run.step % every == 0:
                _settle(run, record, progress)
                record.append_evaluation(run.step, *_until(stop, lambda: _evaluate(run)))
            take_step(run, *_until(stop, lambda: run.batches(run.step)))
            progress.update()
            record.check()
            if run.tracker.is_full:
                _hand_over(run, record)
                _check_finite(run, record, progress)
            if monotonic() - written > COMMIT_SECONDS:
                _write(run, record, progress)
                record.commit()
                written = monotonic()
        _write(run, record, progress)
        if run.step == run.steps:
            return
        _save(run, record, saver)
    except Interrupted:  # while it waited, between two steps
        _write(run, record, progress)
        _save(run, record, saver)
    except KeyboardInterrupt:  # a second signal, in the middle of a step: no state to save
        _write(run, record, progress)
    except LostError:
        _write(run, record, progress)
        record.close("stopped: another process of the run ended")
        raise
    finally:
        progress.close()
    record.close(f"interrupted at step {run.step}")
    raise Interrupted(record.rows, stop.signal or signal.SIGINT, resumable=True)


def _save(run: Run, record: BackgroundWriter, saver: Saver) -> None:
    """Save a checkpoint, but none that must not be continued from."""
    if run.config.train.on_nan == "stop" and not run.is_finite:
        _end_broken(run, record, run.step, "a parameter")
    saver.save(run, record)


def _finish(run: Run, record: BackgroundWriter, saver: Saver) -> Result:
    """Save and evaluate the trained model; the checkpoint comes first, as everywhere, so that more steps can follow."""
    _save(run, record, saver)
    held_out = _evaluate(run)
    record.append_evaluation(run.steps, *held_out)
    return Result(record.rows, *held_out)


def _until(stop: Stop, wait: Callable[[], _T]) -> _T:
    """What may take long and changes nothing of the run: a signal does not wait for it."""
    stop.waits = True
    try:
        return wait()
    finally:
        stop.waits = False


def take_step(run: Run, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]) -> None:
    """Take the run's next step on a batch, measured if the schedule wants it."""
    what = run.measured
    run.processes.seed(run.config.seed, run.step)
    row = run.rule.row(run.step, run.steps, run.time, run.config.data.batch_size)
    row["lr"] = run.execution.rate(row["lr"])
    run.execution.take(row, x, y, what)
    run.step += 1
    run.time += row["lr"]


def _hand_over(run: Run, record: BackgroundWriter) -> None:
    """Give the pending rows to the record, which has them sooner or later; say so once if the training waits for it."""
    before = record.waited
    run.tracker.write(record, cut=run.config.train.on_nan == "stop", until=run.finite.until)
    if before <= SLOW_SECONDS < record.waited:
        say(
            f"the disk is slower than training, which waits for it ({record.waited:.0f} s so far); nothing is lost: "
            "record less by track.every, track.steps, track.signals or track.charges=site"
        )


def _write(run: Run, record: BackgroundWriter, progress: tqdm) -> None:
    """Give the pending rows to the record and wait until it has them."""
    _hand_over(run, record)
    _settle(run, record, progress)


def _settle(run: Run, record: BackgroundWriter, progress: tqdm) -> None:
    """Wait until the record has all that it was given, and the device the last step; see `_check_finite`."""
    record.drain()
    _check_finite(run, record, progress, run.finite.broken_at(run.step))


def _check_finite(run: Run, record: BackgroundWriter, progress: tqdm, unseen: int | None = None) -> None:
    """A row or an `unseen` step that is not finite ends the run, unless it may go on."""
    if run.tracker.block.last_loss is not None:
        progress.set_postfix(loss=f"{run.tracker.block.last_loss:.4f}", refresh=False)
    broken = [step for step in (run.tracker.block.broken_at, unseen) if step is not None]
    if run.config.train.on_nan == "stop" and broken:
        _end_broken(run, record, min(broken), "the loss or a charge")


def _end_broken(run: Run, record: BackgroundWriter, step: int, what: str) -> NoReturn:
    _hand_over(run, record)  # of the rows that wait, those before that step
    record.close(f"not finite at step {step}")
    raise NotFiniteError(
        f"{what} is not finite at step {step}; {short(record.path)} holds the {record.rows} rows before it; "
        f"{remedy(run, step)}"
    )


def _evaluate(run: Run) -> tuple[float, float]:
    with autocast(run.config.train.precision, run.setup.device):
        return evaluate(run.setup.model, run.setup.data, run.config.loss)


@torch.no_grad()
def evaluate(
    model: nn.Module, data: Dataset, loss: LossLike = "cross_entropy", batch: int = 1024
) -> tuple[float, float]:
    """Mean loss and accuracy over the held-out targets that count, in evaluation mode; NaN where there is none."""
    model.eval()
    criterion = as_loss(loss)
    with closing(data.held_out(batch)) as batches:
        sums = [criterion.tally(output_of(model(x)), y) for x, y in batches]
    model.train()
    total, weight, right, judged = (sum(column) for column in zip(*sums, strict=True))
    return total / weight if weight else nan, right / judged if judged else nan
