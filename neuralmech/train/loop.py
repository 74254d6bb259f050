"""The training loop, top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor, nn
from tqdm import tqdm

from neuralmech.config import Config
from neuralmech.data import Batches, Dataset
from neuralmech.errors import RunError
from neuralmech.losses import loss_of, tally
from neuralmech.record import RecordWriter
from neuralmech.track import Every, Tracker
from neuralmech.train.checkpoint import save_checkpoint
from neuralmech.train.flat import FlatParameters
from neuralmech.train.optimizers import build_optimizer, hyperparameters, momentum_buffer, set_hyperparameters
from neuralmech.train.setup import prepare, provenance

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
    setup = prepare(config)
    model, data = setup.model, setup.data
    flat = FlatParameters(model)
    optimizer = build_optimizer(flat.theta, config.optim)
    batches = Batches(data.train_x, data.train_y, config.data.batch_size, config.seed)
    steps = config.train.steps or max(1, round((config.train.epochs or 0) * batches.per_epoch))
    tracker = Tracker(
        setup.symmetries,
        flat.layout,
        setup.device,
        families=config.track.families,
        nesterov=config.optim.nesterov,
        block=min(config.track.block, steps),
        full=config.track.full,
        dtype=flat.theta.dtype,
    )
    when = Every(config.track.every)
    in_loss_precision = Tensor.double if config.train.loss_precision == "fp64" else Tensor.contiguous

    with RecordWriter(folder, provenance(config, setup.device), tracker.layouts(), tracker.block) as record:
        save_checkpoint(folder / "checkpoints", model, 0)
        torch.manual_seed(config.seed)  # dropout draws the same whatever happened before
        step, time, written = 0, 0.0, monotonic()
        progress = tqdm(total=steps, unit="step", dynamic_ncols=True, disable=None)
        try:
            for step in range(steps):
                if config.train.eval_every and step % config.train.eval_every == 0:
                    record.append_evaluation(step, *evaluate(model, data))
                row = hyperparameters(config.optim, step, steps, time, config.data.batch_size)
                set_hyperparameters(optimizer, row)

                x, y = batches(step)
                flat.grad.zero_()
                loss = loss_of(in_loss_precision(model(x)), y)
                loss.backward()
                if when.wants(step):
                    tracker.before(flat.theta)
                optimizer.step()
                if when.wants(step):
                    tracker.after(flat.theta, flat.grad, momentum_buffer(optimizer, flat.theta), loss, row)

                time += row["lr"]
                progress.update()
                if tracker.is_full or monotonic() - written > FLUSH_SECONDS:
                    _write(tracker, record, progress)
                    written = monotonic()
            _write(tracker, record, progress)
        except KeyboardInterrupt:
            _write(tracker, record, progress)
            record.close(f"interrupted at step {step}")
            raise Interrupted(record.rows) from None
        finally:
            progress.close()
        held_out = evaluate(model, data)
        record.append_evaluation(steps, *held_out)
        save_checkpoint(folder / "checkpoints", model, steps)
        return Result(record.rows, *held_out)


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
