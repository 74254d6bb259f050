"""The training loop, top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor, nn
from tqdm import tqdm

from neuralmech.config import Config, OptimConfig
from neuralmech.data import Batches, Dataset
from neuralmech.errors import RunError
from neuralmech.losses import loss_of, tally
from neuralmech.record import RecordWriter
from neuralmech.schedules import learning_rate
from neuralmech.track import Every, Tracker
from neuralmech.train.checkpoint import save_checkpoint
from neuralmech.train.flat import FlatParameters
from neuralmech.train.setup import Setup, prepare, provenance

FLUSH_SECONDS = 15.0  # a slow run commits incomplete blocks this often


@dataclass(frozen=True)
class Result:
    """How a run ended: rows in the record, last loss and accuracy on held-out data."""

    rows: int
    loss: float
    accuracy: float


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training, after everything measured was written; `rows` says how many."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows


@dataclass
class Run:
    """A run between two steps: what a step reads and changes."""

    config: Config
    setup: Setup
    flat: FlatParameters
    optimizer: torch.optim.SGD
    batches: Batches
    tracker: Tracker
    steps: int
    step: int = 0  # the step to come
    time: float = 0.0  # Σ η over the steps done


def train(config: Config, folder: Path) -> Result:
    """Train as configured; write ``record.h5`` and ``checkpoints/`` into `folder`.

    Raises
    ------
    UserError
        If the config cannot be run; nothing is written then.
    RunError
        If the loss stops being finite; the rows before that are in the record.
    Interrupted
        On Ctrl-C; the rows up to there are in the record.
    """
    run = begin(config)
    attributes = provenance(config, run.setup.device)
    with RecordWriter(folder, attributes, run.tracker.layouts(), run.tracker.block) as record:
        save_checkpoint(folder / "checkpoints", run.setup.model, 0)
        torch.manual_seed(config.seed)  # dropout draws the same whatever happened before
        _advance(run, record)
        held_out = evaluate(run.setup.model, run.setup.data)
        record.append_evaluation(run.steps, *held_out)
        save_checkpoint(folder / "checkpoints", run.setup.model, run.steps)
        return Result(record.rows, *held_out)


def begin(config: Config) -> Run:
    """Make everything that a run needs; writes nothing."""
    setup = prepare(config)
    flat = FlatParameters(setup.model)
    batches = Batches(setup.data.train_x, setup.data.train_y, config.data.batch_size, config.seed)
    steps = config.train.steps or max(1, round((config.train.epochs or 0) * batches.per_epoch))
    tracker = Tracker(
        setup.symmetries,
        flat.layout,
        setup.device,
        families=config.track.families,
        nesterov=config.optim.nesterov,
        block=min(config.track.block, steps),
        full=config.track.full,
    )
    return Run(config, setup, flat, _sgd(flat.theta, config.optim), batches, tracker, steps)


def _advance(run: Run, record: RecordWriter) -> None:
    """Take all steps; the rows go into the record block by block."""
    every, written = run.config.train.eval_every, monotonic()
    progress = tqdm(total=run.steps, unit="step", dynamic_ncols=True, disable=None)
    try:
        while run.step < run.steps:
            if every and run.step % every == 0:
                record.append_evaluation(run.step, *evaluate(run.setup.model, run.setup.data))
            _step(run)
            progress.update()
            if run.tracker.is_full or monotonic() - written > FLUSH_SECONDS:
                _write(run.tracker, record, progress)
                written = monotonic()
        _write(run.tracker, record, progress)
    except KeyboardInterrupt:
        _write(run.tracker, record, progress)
        record.close(f"interrupted at step {run.step}")
        raise Interrupted(record.rows) from None
    finally:
        progress.close()


def _step(run: Run) -> None:
    """One step of the optimiser, measured if the schedule wants it."""
    model, flat, tracker = run.setup.model, run.flat, run.tracker
    is_tracked = Every(run.config.track.every).wants(run.step)
    row = _hyperparameters(run.config.optim, run.step, run.steps, run.time)
    run.optimizer.param_groups[0]["lr"] = row["lr"]

    x, y = run.batches(run.step)
    flat.grad.zero_()
    logits = model(x)
    loss = loss_of(logits.double() if run.config.train.loss_precision == "fp64" else logits, y)
    loss.backward()
    if is_tracked:
        tracker.before(flat.theta)
    run.optimizer.step()
    if is_tracked:
        tracker.after(flat.theta, flat.grad, _momentum(run.optimizer, flat.theta), loss, row)
    run.step += 1
    run.time += row["lr"]


def _sgd(theta: nn.Parameter, optim: OptimConfig) -> torch.optim.SGD:
    return torch.optim.SGD(
        [theta],
        lr=optim.lr,
        momentum=optim.momentum,
        dampening=optim.dampening,
        weight_decay=optim.weight_decay,
        nesterov=optim.nesterov,
        fused=True,
    )


def _momentum(optimizer: torch.optim.SGD, theta: nn.Parameter) -> Tensor | None:
    return optimizer.state[theta].get("momentum_buffer")


def _hyperparameters(optim: OptimConfig, step: int, steps: int, time: float) -> dict[str, float]:
    return {
        "step": step,
        "time": time,
        "lr": learning_rate(optim.lr, optim.schedule, step, steps),
        "momentum": optim.momentum,
        "dampening": optim.dampening,
        "weight_decay": optim.weight_decay,
        "nesterov": optim.nesterov,
    }


def _write(tracker: Tracker, record: RecordWriter, progress: tqdm) -> None:
    """Write the pending rows; a row that is not finite ends the run."""
    if not tracker.pending:
        return
    block = tracker.write(record)
    progress.set_postfix(loss=f"{block.last_loss:.4f}", refresh=False)
    if block.broken_at is not None:
        record.close(f"not finite at step {block.broken_at}")
        raise RunError(
            f"the loss or a charge is not finite at step {block.broken_at}; "
            f"{record.path} holds the {record.rows} rows before it; lower optim.lr"
        )


@torch.no_grad()
def evaluate(model: nn.Module, data: Dataset, batch: int = 1024) -> tuple[float, float]:
    """Mean loss and accuracy over the held-out targets that count, in evaluation mode."""
    model.eval()
    loss, right, counted = 0.0, 0, 0
    for x, y in zip(data.test_x.split(batch), data.test_y.split(batch), strict=True):
        total, hits, count = tally(model(x), y)
        loss, right, counted = loss + total, right + hits, counted + count
    model.train()
    return loss / counted, right / counted
