"""How a step is executed: call by call, or replayed from a CUDA graph. Either way it is the same step."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralmech.charges.step import Step, rate_of
from neuralmech.config import TrainConfig
from neuralmech.errors import RunError, UserError, chain
from neuralmech.track import Tracker
from neuralmech.track.block import Seen
from neuralmech.training.ascent import Ascent
from neuralmech.training.finite import FiniteLosses
from neuralmech.training.flat import FlatParameters
from neuralmech.training.passes import Passes
from neuralmech.training.rule import LearningRule
from neuralmech.training.update import Loss, Update

Work = Callable[[], None]
Row = dict[str, float]


def check_execution(train: TrainConfig, device: torch.device) -> None:
    """Raise a `UserError` for ways of executing that the device does not have."""
    if device.type != "cuda":
        if train.precision == "tf32":
            raise UserError("train.precision=tf32 is for GPUs, the CPU has no such units; use fp32")
        if train.cuda_graph:
            raise UserError("train.cuda_graph=true needs a GPU; use train.cuda_graph=false or train.compile=true")
    compiler = os.environ.get("CXX", "g++")
    if train.compile and shutil.which(compiler) is None:
        raise UserError(
            f"train.compile=true needs a C++ compiler and {compiler} is not there; "
            "install g++, set CXX, or use train.compile=false"
        )


def compiled(loss: Loss) -> Loss:
    """The loss and, through autograd, its gradient, as code that `torch.compile` makes of them at the first step."""
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    made = torch.compile(loss)

    def checked(model: nn.Module, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]) -> Tensor:
        try:
            return made(model, x, y)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            if disk := next((e for e in chain(error) if isinstance(e, OSError)), None):
                where = disk.filename or "the folder of compiled code"
                raise RunError(
                    f"train.compile: {where} cannot be used ({disk.strerror or reason}); "
                    "set TORCHINDUCTOR_CACHE_DIR to a folder that can be written"
                ) from error
            raise RunError(f"train.compile: PyTorch cannot compile this model ({reason}); use compile=false") from error

    return checked


class Due(NamedTuple):
    """What of a step is measured: its charges, with them the gradient's mean and noise and the Frobenius norms."""

    charges: bool
    noise: bool
    norms: bool


@dataclass(frozen=True)
class Tools:
    """What steps are taken with, whatever the way: of a run, neither its config nor where it is.

    Attributes
    ----------
    passes
        Forward and backward of a batch.
    ascent
        Takes the gradient elsewhere; None if it is that at θ.
    measure_noise
        Measures the gradient's mean and noise around a batch x, y with that gradient.
    """

    passes: Passes
    flat: FlatParameters
    rule: LearningRule
    update: Update
    finite: FiniteLosses
    tracker: Tracker
    ascent: Ascent | None
    measure_noise: Callable[[Tensor, Tensor, Tensor], None]

    def gradient(self, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """Leave the gradient of a batch's loss, or that which the rule wants, in the flat vector.

        Returns the loss at θ, without its graph.
        """
        self.flat.grad.zero_()
        loss = self.passes(x, y)
        self.finite.see(loss)
        if self.ascent is not None:
            self.ascent.climb(lambda: self.passes(x, y))
        return loss

    def measured(
        self, row: Mapping[str, float | Float[Tensor, ""]], rate: float | Float[Tensor, ""]
    ) -> tuple[Step, Seen]:
        """The step that was just taken, and what happened to its gradient and update."""
        update, ascent = self.update, self.ascent
        kept = self.rule.kept(row, None if ascent is None else ascent.gradient)
        step = self.tracker.step(self.flat.theta, self.flat.grad, rate, kept)
        return step, Seen(update.skipped, update.clip, None if ascent is None else ascent.norm)


class Execution(Protocol):
    """A way of taking steps."""

    def rate(self, lr: float) -> float:
        """Learning rate as the optimiser gets it."""
        ...

    def take(self, row: Row, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."], what: Due) -> None:
        """Take the step of a batch and record what is to be measured of it."""
        ...


class Plain:
    """Call by call."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def rate(self, lr: float) -> float:
        """As it is."""
        return lr

    def take(self, row: Row, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."], what: Due) -> None:
        """Gradient, update, charges."""
        tools = self._tools
        tools.rule.set(row)
        loss = tools.gradient(x, y)
        if what.noise:  # whoever records it
            tools.measure_noise(x, y, tools.flat.grad)
        if not what.charges:
            tools.update.step()
            return
        theta = tools.flat.theta
        tools.tracker.before(theta)
        tools.update.step()
        step, seen = tools.measured(row, rate_of(row["lr"]))
        tools.tracker.after(step, loss, row, seen, norms=what.norms)


class Capture(Protocol):
    """What makes a graph of work."""

    def warm_up(self, work: Work) -> None:
        """Do it as it will be captured."""
        ...

    def __call__(self, work: Work) -> Work:
        """Capture it, without doing it; returns what does it."""
        ...


class CudaCapture:
    """CUDA graphs on a stream of their own.

    The first steps run eagerly on the stream that captures, so that libraries choose and allocate there, and
    autograd's nodes belong to it (PyTorch's CUDA semantics, "Whole-network capture").
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        # Graphs run one after the other and keep nothing between runs: one room for the intermediates of all.
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Work) -> None:
        """Do it on the stream that captures."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def __call__(self, work: Work) -> Work:
        """Capture it; other threads, which write the record or load data, may use the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise RunError(
                f"train.cuda_graph: this step cannot be captured ({reason}); use cuda_graph=false"
            ) from error
        return graph.replay


class Graphed:
    """Forward, backward, update and measurement as one graph for each choice of what is measured.

    A graph reads and writes tensors at fixed places: the batch, η and 1/η are copied there before it runs, the
    measured row is copied from there afterwards. η is a float32 number, which is what the record says too. The
    first steps of each kind are taken eagerly; they are steps like any other.
    """

    WARM_UP = 3

    def __init__(self, tools: Tools, capture: Capture) -> None:
        self._tools, self._capture = tools, capture
        device = tools.flat.theta.device
        self._lr = torch.zeros((), dtype=torch.float32, device=device)
        self._rate = torch.zeros((), dtype=torch.float64, device=device)
        self._batch: tuple[Tensor, Tensor] | None = None
        self._measured = tools.tracker.block.new_row()
        self._warm: Counter[Due] = Counter()
        self._replay: dict[Due, Work] = {}
        for group in tools.rule.optimizer.param_groups:
            if "capturable" in group:  # Adam's step count is on the device
                group["capturable"] = True

    def rate(self, lr: float) -> float:
        """Rounded to float32."""
        return float(np.float32(lr))

    def take(self, row: Row, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."], what: Due) -> None:
        """Fill the fixed places, replay, keep what was measured."""
        assert not what.noise
        self._fill(row, x, y)
        if self._warm[what] < self.WARM_UP:
            self._warm[what] += 1
            self._capture.warm_up(lambda: self._work(what))
        else:
            if what not in self._replay:
                self._replay[what] = self._capture(lambda: self._work(what))
            self._replay[what]()
        if what.charges:
            self._tools.tracker.keep(self._measured, row)

    def _fill(self, row: Row, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]) -> None:
        if self._batch is None:
            device = self._tools.flat.theta.device
            self._batch = torch.empty_like(x, device=device), torch.empty_like(y, device=device)
        for place, value in zip(self._batch, (x, y), strict=True):
            place.copy_(value, non_blocking=True)
        self._lr.fill_(row["lr"])
        self._rate.fill_(rate_of(row["lr"]))

    def _work(self, what: Due) -> None:
        tools, theta = self._tools, self._tools.flat.theta
        assert self._batch is not None
        row = {"lr": self._lr, "weight_decay": tools.rule.config.weight_decay}
        tools.rule.set(row)
        loss = tools.gradient(*self._batch)
        if not what.charges:
            tools.update.step()
            return
        tools.tracker.before(theta)
        tools.update.step()
        step, seen = tools.measured(row, self._rate)
        tools.tracker.measure(step, loss, seen, self._measured, norms=what.norms)
