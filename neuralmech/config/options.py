"""The options of a run, with units, and every check that can be made before anything starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from neuralmech.checks import check_at_least, check_choice
from neuralmech.config.optim import OptimConfig, RuleConfig
from neuralmech.errors import UserError
from neuralmech.loggers import check_installed
from neuralmech.losses import CrossEntropy
from neuralmech.record.schema import ALL_SIGNALS, BLOCK, NORMS_OF, SOME_ROWS
from neuralmech.symmetry.names import FAMILIES
from neuralmech.words import Differing

PRECISIONS = ("fp32", "fp64", "tf32", "bf16", "fp16")


@dataclass(repr=False)
class TrackConfig(Differing):
    """Which families to record (null: all that the model has), and at which steps.

    `charges` is ``all``, ``site`` (the sum over each site, which obeys the same laws) or ``sample`` (some of each).
    `noise` is the number of rows between measurements of the gradient's mean and noise (0: none), `noise_from` their
    source: the ``halves`` of the step's batch, or all batches of the whole ``set``.
    `steps` are windows [first, end) of steps to record (null: all along), `signals` the recorded signals besides the
    value (null: all; a law that lacks one is dashed). Matrix-valued charges (family ``linear``) of up to `full`
    channels are recorded entry by entry, larger ones on their diagonal; every `norms` rows the Frobenius norm of
    each is recorded besides (0: never), which takes the product of whole weight matrices. `parameters` single
    parameters of each family are recorded beside the charges that they are part of. `compress` makes the record a
    little smaller, at a cost that fast steps feel. `rotations` records the angular momenta of rotations between
    consecutive linear maps, pair by pair of up to `full` channels, of neighbours where there are more. `sides` records
    how large both sides of rescale charges are, and their gradients, `oscillation` what of each step turns back the one
    before it. `norms_of` says what norms of each parameter tensor are recorded: of its ``gradient``, of the
    ``parameter`` itself, of the ``update``.
    """

    families: list[str] | None = None
    signals: list[str] | None = None
    steps: list[list[int]] | None = None
    every: int = 1
    block: int = BLOCK
    full: int = 16
    norms: int = SOME_ROWS
    noise: int = 0
    noise_from: str = "halves"
    charges: str = "all"
    sample: int = 8
    parameters: int = 4
    compress: bool = False
    rotations: bool = False
    sides: bool = False
    oscillation: bool = False
    norms_of: list[str] = field(default_factory=lambda: list(NORMS_OF))

    def check(self) -> None:
        """Raise a `UserError` for unknown families or empty schedules."""
        for family in self.families or ():
            check_choice("track.families", family, FAMILIES)
        for signal in self.signals or ():
            check_choice("track.signals", signal, ALL_SIGNALS)
        for of in self.norms_of:
            check_choice("track.norms_of", of, NORMS_OF)
        if self.steps is not None:
            _check_windows(self.steps)
        check_at_least("track.every", self.every, 1)
        check_at_least("track.block", self.block, 1)
        check_at_least("track.full", self.full, 0)
        check_at_least("track.norms", self.norms, 0)
        check_at_least("track.noise", self.noise, 0)
        check_choice("track.noise_from", self.noise_from, ("halves", "set"))
        check_choice("track.charges", self.charges, ("all", "site", "sample"))
        check_at_least("track.sample", self.sample, 1)
        if self.oscillation and (self.every != 1 or self.steps is not None):
            raise UserError("track.oscillation=true compares consecutive steps; use track.every=1 and track.steps=null")
        if self.sides and self.charges != "all":
            raise UserError(f"track.sides=true is of single charges; use track.charges=all, not {self.charges}")
        check_at_least("track.parameters", self.parameters, 0)


def _check_windows(windows: list[list[int]]) -> None:
    """Raise a `UserError` unless there are windows [first, end), in order, none of which touches the next."""
    end = -1
    for window in windows or [[]]:
        if len(window) != 2 or not end < window[0] < window[1]:
            raise UserError(
                f"track.steps={windows} must be windows [first, end) in order and apart, such as [[0,100],[900,1000]]"
            )
        end = window[1]


@dataclass(repr=False)
class CheckpointConfig(Differing):
    """When to save what a resumed run needs, besides at the start and at the end.

    Every so many steps, every so many minutes, or both (0: not); the last `keep` are kept (null: all), and the first.
    """

    every: int = 0
    minutes: float = 10.0
    keep: int | None = 2

    def check(self) -> None:
        """Raise a `UserError` for impossible numbers."""
        check_at_least("train.checkpoint.every", self.every, 0)
        check_at_least("train.checkpoint.minutes", self.minutes, 0)
        if self.keep is not None:
            check_at_least("train.checkpoint.keep", self.keep, 1)


@dataclass(repr=False)
class TrainConfig(Differing):
    """Length in optimiser steps or in epochs; `eval_every` in steps (0: at the end only).

    `accumulate` is the number of equal parts of a batch, one after the other on the device, whose gradients make up the
    gradient of a step: less memory, the same step. The batch, which theory knows the size of, stays the whole.

    `precision` is that of parameters and activations, `loss_precision` that of the loss itself. Under
    tf32, bf16 and fp16 the parameters are float32 and matrix products less precise; `loss_scale` is the factor on
    fp16 gradients to begin with. In float32 a confident sample's probability rounds to one while the others' do not
    vanish, so the gradient over the classes does not sum to zero and the translation symmetry is visibly broken;
    hence fp64.

    `on_nan` says what happens when the loss or a charge is not finite: ``stop`` ends the run before that row,
    ``continue`` records it and goes on.

    `compile` makes the forward and backward pass one compiled function (`torch.compile`); `cuda_graph` replays whole
    steps, recording included, from a CUDA graph. `deterministic` refuses kernels that add in an order of their own.

    `verify` checks the claims on the first batch before anything is recorded.
    """

    steps: int | None = 2000
    epochs: float | None = None
    eval_every: int = 500
    accumulate: int = 1
    precision: str = "fp32"
    loss_precision: str = "fp64"
    loss_scale: float = 65536.0
    compile: bool = False
    cuda_graph: bool = False
    deterministic: bool = False
    verify: bool = True
    on_nan: str = "stop"
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def check(self) -> None:
        """Raise a `UserError` unless exactly one length is given."""
        if (self.steps is None) == (self.epochs is None):
            raise UserError("train.steps and train.epochs: give one of them and set the other to null")
        if self.steps is not None:
            check_at_least("train.steps", self.steps, 1)
        if self.epochs is not None and not 0 < self.epochs < float("inf"):
            raise UserError(f"train.epochs={self.epochs} must be a positive number")
        check_at_least("train.eval_every", self.eval_every, 0)
        check_at_least("train.accumulate", self.accumulate, 1)
        check_choice("train.precision", self.precision, PRECISIONS)
        check_choice("train.loss_precision", self.loss_precision, ("model", "fp64"))
        if not 0 < self.loss_scale < 2**127:
            raise UserError(f"train.loss_scale={self.loss_scale} must be a positive number, such as 65536")
        check_choice("train.on_nan", self.on_nan, ("stop", "continue"))
        self.checkpoint.check()


@dataclass(repr=False)
class LoggerConfig(Differing):
    """Which experiment tracker is told every `every` rows (``none``: none), and as part of which project."""

    name: str = "none"
    every: int = 100
    project: str = "neuralmech"

    def check(self) -> None:
        """Raise a `UserError` for an unknown tracker, or one whose library is missing."""
        check_installed(self.name)
        check_at_least("logger.every", self.every, 1)


@dataclass(repr=False)
class Config(Differing):
    """One run. `model`, `data` and `loss` are the options of the architecture, data set and loss that they name."""

    model: Any
    data: Any
    optim: RuleConfig
    track: TrackConfig
    train: TrainConfig
    loss: Any = field(default_factory=CrossEntropy)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    seed: int = 0
    device: str = "auto"

    def check(self) -> None:
        """Check every part and what holds between them."""
        for part in (self.model, self.data, self.loss, self.optim, self.track, self.train, self.logger):
            part.check()
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed} must lie in [0, 2^63); use a smaller one")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UserError(f"device={self.device} is unknown; choose auto, cpu, cuda or cuda:N")
        self.check_parts()
        if self.train.precision == "fp16":
            self._check_scaled()
        if self.train.cuda_graph:
            self._check_captured()
        if self.track.noise and self.optim.changes_gradients:
            raise UserError(
                "track.noise measures the gradients of the loss, and optim.clip_norm, clip_value and sam_rho give the "
                "rule others; use noise=0 or none of these"
            )

    def check_parts(self, processes: int = 1) -> None:
        """Raise a `UserError` unless so many processes can share each batch, and take their shares in equal parts."""
        parts, size = processes * self.train.accumulate, self.data.batch_size
        by = f"train.accumulate={self.train.accumulate}"
        if processes > 1:
            by = f"{processes} processes" if self.train.accumulate == 1 else f"{processes} processes with {by}"
        if size % parts:
            raise UserError(
                f"data.batch_size={size} has no {parts} equal parts for {by}; use a multiple, such as "
                f"data.batch_size={-(-size // parts) * parts}, or fewer parts"
            )
        if parts > 1 and self.track.noise and self.track.noise_from == "halves" and size % (2 * parts):
            raise UserError(
                f"track.noise={self.track.noise}: the halves of data.batch_size={size} have no {parts} equal parts "
                f"for {by}; use a multiple of {2 * parts}, or track.noise_from=set"
            )

    def _check_scaled(self) -> None:
        optim = self.optim
        if not isinstance(optim, OptimConfig) or optim.name == "muon":
            raise UserError(
                "train.precision=fp16 is for sgd, sgdw, adam and adamw, which can leave out a step; use bf16"
            )
        if optim.sam_rho:
            raise UserError("optim.sam_rho needs gradients that are not scaled; use train.precision=bf16")
        if optim.dampening:
            raise UserError(
                "optim.dampening: the first fp16 steps may be skipped, and PyTorch then dampens the first one taken; "
                "use train.precision=bf16 or dampening=0"
            )
        if self.track.noise:
            raise UserError("track.noise measures gradients that are not scaled; use train.precision=bf16 or noise=0")

    def _check_captured(self) -> None:
        if self.train.accumulate > 1:
            raise UserError(
                f"train.accumulate={self.train.accumulate} does not go with train.cuda_graph=true; use one of them"
            )
        if self.track.noise:
            raise UserError("track.noise measures more than a CUDA graph holds; use train.cuda_graph=false or noise=0")
        if not isinstance(self.optim, OptimConfig) or self.optim.name == "muon":
            raise UserError("train.cuda_graph=true is for sgd, sgdw, adam and adamw; use train.cuda_graph=false")
        if self.optim.weight_decay_schedule.changes:
            raise UserError(
                "optim.weight_decay_schedule changes what a CUDA graph has fixed; use train.cuda_graph=false"
            )
