"""A run between two steps, and how it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from time import monotonic
from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from neuralmech.config import CheckpointConfig, Config, to_yaml
from neuralmech.data import Batches
from neuralmech.data.draws import random_state
from neuralmech.data.parts import Samples
from neuralmech.errors import RunError, UserError
from neuralmech.record import BackgroundWriter
from neuralmech.track import Schedule, Tracker
from neuralmech.track.expected import expected, expected_of_halves
from neuralmech.training.ascent import Ascent
from neuralmech.training.checkpoint import from_position, prune, save_checkpoint, skeleton_of
from neuralmech.training.execute import CudaCapture, Due, Execution, Graphed, Plain, Tools, compiled
from neuralmech.training.finite import FiniteLosses
from neuralmech.training.flat import FlatParameters
from neuralmech.training.noise import Epoch, Gradients
from neuralmech.training.one_pass import in_one_pass
from neuralmech.training.passes import Passes
from neuralmech.training.rule import LearningRule
from neuralmech.training.setup import Setup
from neuralmech.training.together import ALONE, Alone
from neuralmech.training.update import Loss, Update, loss_function
from neuralmech.words import first_line

WEIGHED = 16  # batches of a streamed set that tell how many targets a sample has
Pair = tuple[Tensor, Tensor]


@dataclass
class Run:
    """A run between two steps: what a step reads and changes."""

    config: Config
    setup: Setup
    flat: FlatParameters
    rule: LearningRule
    batches: Batches
    tracker: Tracker
    schedule: Schedule
    steps: int
    processes: Alone = ALONE
    step: int = 0  # the step to come
    time: float = 0.0  # Σ η over the steps done
    identity: str = ""  # what its record and checkpoints share with no other run's

    def is_due(self, rows: int) -> bool:
        """Whether the present row is the first of its window or a multiple of so many after it (0: never)."""
        return rows > 0 and self.schedule.position(self.step) % rows == 0

    @property
    def measured(self) -> Due:
        """What is measured of the step to come."""
        if not self.schedule.wants(self.step):
            return Due(charges=False, noise=False, norms=False)
        records = self.processes.is_first  # the others take their part in gradients alone
        norms = records and self.tracker.has_norms and self.is_due(self.config.track.norms)
        return Due(charges=records, noise=self.is_due(self.config.track.noise), norms=norms)

    @cached_property
    def written_config(self) -> str:
        """The config as YAML, which takes longer to make than a small checkpoint to save."""
        return to_yaml(self.config)

    @cached_property
    def loss(self) -> Loss:
        """Loss of a batch, in the precision asked for."""
        return loss_function(self.config.train, self.setup.device, self.config.loss)

    @cached_property
    def update(self) -> Update:
        """Takes the rule's steps."""
        return Update(self.rule, self.flat, self.config.train)

    @cached_property
    def finite(self) -> FiniteLosses:
        """Watches the loss of every step from here on, recorded or not."""
        return FiniteLosses(self.step, self.setup.device)

    @property
    def is_finite(self) -> bool:
        """Whether the parameters and what the optimiser keeps of them are finite; waits for the device."""
        return all(bool(v.isfinite().all()) for v in (self.flat.theta.detach(), *self.rule.tensors()))

    @cached_property
    def execution(self) -> Execution:
        """Takes a step."""
        model, train = self.setup.model, self.config.train
        loss = compiled(self.loss) if train.compile else self.loss
        weigh, backward = self.config.loss.weight_of, self.update.backward
        tools = Tools(
            passes=Passes(model, loss, weigh, backward, self.flat, train.accumulate, self.processes),
            flat=self.flat,
            rule=self.rule,
            update=self.update,
            finite=self.finite,
            tracker=self.tracker,
            ascent=Ascent(rho, model, self.flat) if (rho := self.config.optim.sam_rho) else None,
            measure_noise=self.measure_noise,
        )
        if train.cuda_graph:
            return Graphed(tools, CudaCapture(self.setup.device))
        return in_one_pass(tools) or Plain(tools)

    @cached_property
    def _gradients(self) -> Gradients:
        parts, weigh = self.config.train.accumulate, self.config.loss.weight_of
        return Gradients(self.setup.model, self.flat, self.loss, weigh, parts, self.processes)

    def check_parts(self) -> None:
        """Raise a `UserError` if a part of a batch is one sample, and the model cannot take that."""
        parts, size = self.config.train.accumulate * self.processes.count, self.config.data.batch_size
        if parts == 1 or parts < size:
            return
        try:
            next(self._gradients.each([self.batches(0)]))
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"data.batch_size={size} in {parts} parts, by train.accumulate or processes: each is one sample, "
                f"which this model cannot take by itself ({first_line(error)}); use fewer parts"
            ) from error

    def check_noise(self) -> None:
        """Raise a `UserError` if the gradient's noise is to be measured from halves that the model cannot take."""
        track, parts = self.config.track, 2 * self.config.train.accumulate * self.processes.count
        half = self.config.data.batch_size // parts
        if not track.noise or track.noise_from != "halves" or half > 1:
            return
        try:
            self._gradients.halves(*self.batches(0))
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"track.noise={track.noise}: half a batch is one sample, which this model cannot take by itself "
                f"({first_line(error)}); use data.batch_size=4 or more, or track.noise_from=set"
            ) from error

    def measure_noise(
        self, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."], gradient: Float[Tensor, " parameters"]
    ) -> None:
        """Measure the gradient's mean and noise, from the halves of the step's batch or over the whole epoch."""
        tracker, size = self.tracker, self.config.data.batch_size
        drive = partial(tracker.drive, self.flat.theta.detach())
        if self.config.track.noise_from == "set":
            first, count = self.step - self.step % self.batches.per_epoch, self.batches.per_epoch
            epoch = Epoch(self._gradients, map(self.batches, range(first, first + count)))
            tracker.noise = expected(drive, epoch.whole, count * size, epoch, size)
            return
        whole, halves, shares = self._halved(x, y, gradient)
        if self._couples:
            tracker.noise = expected(drive, lambda: whole, size, halves, size // 2)
        else:
            first, second = (share * half for share, half in zip(shares, halves, strict=True))
            tracker.noise = expected_of_halves(drive, whole, size, first, second)

    @cached_property
    def _couples(self) -> bool:
        """Whether a norm couples the samples of a batch, so that its gradient is no mean over them."""
        norms = [m for m in self.setup.model.modules() if isinstance(m, _BatchNorm)]
        return any(m.training or m.running_mean is None for m in norms)

    @cached_property
    def _usual_weight(self) -> float:
        """Mean number of a sample's targets that count: of the training part, or of what is streamed in 16 batches."""
        train = self.setup.data.train
        if isinstance(train, Samples):
            return float(self.config.loss.weight_of(train.y)) / len(train)
        parts = [self.batches(k)[1] for k in range(WEIGHED)]
        weight = sum(float(self._gradients.weigh(y)) for y in parts)
        return weight / (self.processes.count * sum(len(y) for y in parts))

    def _halved(self, x: Tensor, y: Tensor, gradient: Tensor) -> tuple[Tensor, Pair, tuple[float, float]]:
        """Gradients of a batch and of its halves, and how many targets these have, relative to usual ones.

        The batch is x, y or, where one of its halves has no target that counts, the first after it where both do.

        Raises
        ------
        RunError
            If there is none in as many batches as an epoch has.
        """
        for ahead in range(1, self.batches.per_epoch + 1):
            halves = self._gradients.halves(x, y)
            if halves is not None:
                half, usual = len(x) // 2, self._usual_weight * self.processes.count * (len(x) // 2)
                counted = [float(self._gradients.weigh(targets)) for targets in (y[:half], y[half : 2 * half])]
                return gradient, halves, (counted[0] / usual, counted[1] / usual)
            x, y = self.batches(self.step + ahead)
            (gradient,) = self._gradients.each([(x, y)])
        raise RunError(
            "track.noise: in no batch do both halves have targets that count; use a larger data.batch_size, or "
            "track.noise_from=set"
        )


def begin_together(run: Run) -> None:
    """Put all processes where the first one is, which may have read a checkpoint."""
    processes = run.processes
    if processes.count == 1:
        return
    model = {name: value.detach().cpu() for name, value in run.setup.model.state_dict().items()}
    state = run.rule.optimizer.state_dict(), run.update.state_dict(), run.step, run.time
    model, (optimizer, scaler, step, time) = processes.tell((model, _on_host(state)))
    if processes.is_first:
        return
    run.setup.model.load_state_dict(model)
    run.rule.load(optimizer)
    run.update.load_state_dict(scaler)
    run.step, run.time = step, time


def _on_host(state: Any) -> Any:
    """Plain data with all tensors in it copied to the CPU."""
    return tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), state)


def save(run: Run, record: BackgroundWriter, folder: Path) -> None:
    """Commit the record, then write the checkpoint that refers to it. All measured rows are with the record."""
    position = record.position()
    state = {
        "run": run.identity,
        "config": run.written_config,
        "optimizer": run.rule.optimizer.state_dict(),
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
