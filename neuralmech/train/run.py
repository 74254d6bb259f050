"""A run between two steps, and how it is saved."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor

from neuralmech.config import CheckpointConfig, Config, to_yaml
from neuralmech.data import Batches
from neuralmech.record import BackgroundWriter
from neuralmech.record.safety import printable
from neuralmech.track import Schedule, Tracker
from neuralmech.train.checkpoint import prune, save_checkpoint, skeleton_of
from neuralmech.train.execute import CudaCapture, Execution, Graphed, Measuring, Plain, compiled
from neuralmech.train.finite import FiniteLosses
from neuralmech.train.flat import FlatParameters
from neuralmech.train.noise import Gradients
from neuralmech.train.one_pass import in_one_pass
from neuralmech.train.precision import Loss, Update, loss_function
from neuralmech.train.setup import Setup
from neuralmech.train.state import from_position, random_state


@dataclass
class Run:
    """A run between two steps: what a step reads and changes."""

    config: Config
    setup: Setup
    flat: FlatParameters
    optimizer: torch.optim.Optimizer
    batches: Batches
    tracker: Tracker
    schedule: Schedule
    steps: int
    step: int = 0  # the step to come
    time: float = 0.0  # Σ η over the steps done
    identity: str = ""  # what its record and checkpoints share with no other run's

    def is_due(self, rows: int) -> bool:
        """Whether the present row is the first of its window or a multiple of so many after it (0: never)."""
        return rows > 0 and self.schedule.position(self.step) % rows == 0

    @property
    def measured(self) -> Measuring:
        """What is measured of the step to come."""
        if not self.schedule.wants(self.step):
            return Measuring(charges=False, noise=False, norms=False)
        norms = self.tracker.has_norms and self.is_due(self.config.track.norms)
        return Measuring(charges=True, noise=self.is_due(self.config.track.noise), norms=norms)

    @cached_property
    def written_config(self) -> str:
        """The config as YAML, which takes longer to make than a small checkpoint to save."""
        return to_yaml(self.config)

    @cached_property
    def loss(self) -> Loss:
        """Loss of a batch, in the precision asked for."""
        return loss_function(self.config.train, self.setup.device)

    @cached_property
    def step_loss(self) -> Loss:
        """The same as a step evaluates it, compiled if asked to."""
        return compiled(self.loss) if self.config.train.compile else self.loss

    @cached_property
    def update(self) -> Update:
        """Steps the optimiser."""
        return Update(self.optimizer, self.flat.theta, self.config.train)

    @cached_property
    def finite(self) -> FiniteLosses:
        """Watches the loss of every step from here on, recorded or not."""
        return FiniteLosses(self.step, self.setup.device)

    @property
    def is_finite(self) -> bool:
        """Whether the parameters and what the optimiser keeps of them are finite; waits for the device."""
        kept = [v for v in self.optimizer.state.get(self.flat.theta, {}).values() if isinstance(v, Tensor)]
        return all(bool(v.isfinite().all()) for v in (self.flat.theta.detach(), *kept))

    @cached_property
    def execution(self) -> Execution:
        """Takes a step."""
        if self.config.train.cuda_graph:
            return Graphed(self, CudaCapture(self.setup.device))
        return in_one_pass(self) or Plain(self)

    @cached_property
    def _gradients(self) -> Gradients:
        return Gradients(self.setup.model, self.flat, self.loss)

    def measure_noise(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Gradients of the halves of the step's batch; or measure over the whole epoch, and tell the tracker."""
        if self.config.track.noise_from == "halves":
            return self._gradients.halves(x, y)
        first = self.step - self.step % self.batches.per_epoch
        batches = map(self.batches, range(first, first + self.batches.per_epoch))
        self.tracker.expect(self.flat.theta.detach(), self._gradients.each(batches), self.config.data.batch_size)
        return None


def save(run: Run, record: BackgroundWriter, folder: Path) -> None:
    """Commit the record, then write the checkpoint that refers to it. All measured rows are with the record."""
    position = record.position()
    state = {
        "run": run.identity,
        "config": run.written_config,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.update.state_dict(),
        "random": random_state(run.setup.device),
        "time": run.time,
        "noise": run.tracker.noise,
        "last": run.tracker.last,
        "record": from_position(position),
    }
    folder.mkdir(exist_ok=True)
    record.skeleton().save(skeleton_of(folder, run.step))
    save_checkpoint(folder, run.setup.model, run.step, state)


class Saver:
    """Saves checkpoints when they are due, and deletes old ones."""

    def __init__(self, config: CheckpointConfig, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._step, self._clock = None, monotonic()

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due before `step`; not where the run starts: there is one, or it was read."""
        every, seconds = self._config.every, 60 * self._config.minutes
        is_start, self._step = self._step is None, step
        if is_start:
            return False
        return bool(every and step % every == 0) or bool(seconds and monotonic() - self._clock >= seconds)

    def save(self, run: Run, record: BackgroundWriter) -> None:
        """Save now."""
        save(run, record, self._folder)
        prune(self._folder, self._config.keep)
        self._clock = monotonic()


def say(text: str) -> None:
    """Tell the user something on stderr, in one line."""
    print(f"neuralmech: {printable(' '.join(text.split()))}", file=sys.stderr)
