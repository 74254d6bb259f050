"""Two lines for a training loop of the user's own: `attach`, and `Attached.close`.

Examples
--------
>>> import torch, tempfile
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
>>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
>>> x, y = torch.randn(16, 4), torch.randint(3, (16,))
>>> with tempfile.TemporaryDirectory() as folder, attach(model, optimizer, folder, x) as tracking:
...     for _ in range(3):
...         optimizer.zero_grad()
...         value = torch.nn.functional.cross_entropy(model(x), y)
...         value.backward()
...         optimizer.step()
...         tracking.log(loss=value)
neuralmech: 17 charges: 9 translation, 8 rescale
neuralmech: 3 steps recorded in ...
"""

from __future__ import annotations

import atexit
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

from torch import nn
from torch.optim import Optimizer

from neuralmech.attachment.example import Example, Inputs, LossOfOutput, inner
from neuralmech.attachment.finding import Request, refuse_shards
from neuralmech.attachment.folder import number_of, prepare
from neuralmech.attachment.follower import Follower
from neuralmech.attachment.hooks import CallHook, StepHooks
from neuralmech.attachment.options import (
    AttachOptions,
    bare_optimizers,
    is_first_rank,
    path_of,
    stand_in,
    wanted_of,
)
from neuralmech.errors import UserError
from neuralmech.symmetry.group import Symmetries

_open: weakref.WeakValueDictionary[str, Attached] = weakref.WeakValueDictionary()  # by folder, in this process


def attach(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer] | str | None,
    folder: str | Path,
    example_inputs: Inputs | None = None,
    *,
    loss: LossOfOutput = "cross_entropy",
    resume: bool = False,
    overwrite: bool = False,
    **options: Unpack[AttachOptions],
) -> Attached:
    """Record charges of every step that an optimiser takes in a loop of your own, which stays as it is.

    Parameters stay where they are, and their trajectory is the same to the last bit; the folder can be analysed as that
    of any other run. Everything that moves the parameters must go through the optimisers.

    Parameters
    ----------
    model
        The module that is trained; what DistributedDataParallel or ``torch.compile`` made of it will do.
    optimizer
        Any of ``torch.optim.Optimizer``, or several that train parts of the model. None, or the name of a rule that is
        not SGD's, where updates are taken without one, in `Attached.step`.
    folder
        Of the run; where a record is there already give `resume` or `overwrite`.
    example_inputs
        What the model is called with: a tensor, a tuple of arguments, or a dict of keyword arguments. By default those
        of the first call in training.
    loss
        ``cross_entropy``, ``mse``, ``bce``, or a function of what the model returns: it is traced with the model.
    resume, overwrite
        Go on behind the last row, or delete the record that is there.
    options
        ``families``: names of those to track, by default all. ``charges``: ``all``, or ``site`` for their sums.
        ``signals``: names of those to record beside the value. ``norms_of``: ``gradient``, ``parameter``, ``update``,
        by default all. ``every``: record each n-th step only. ``verify=False``: trust the claims without checking them
        on the first batch. ``groups``: `SymmetryGroup` by hand, in the place of what is found. ``logger``:
        ``tensorboard``, ``wandb``, ``mlflow`` or ``csv`` is told every ``logger_every``-th row (100).

    Returns
    -------
    Attached
        To be closed, by `Attached.close` or a ``with`` block.

    Raises
    ------
    UserError
        If the folder holds a record and nothing says what to do, the model cannot be traced, or an option is none.
    """
    bare, place = inner(model), path_of(folder)
    refuse_shards(model)
    wanted, by_hand = wanted_of(place, loss, resume, options), stand_in(bare, optimizer)
    if not is_first_rank():
        return Attached(None, place, by_hand)
    _take(place, resume=resume, overwrite=overwrite)
    optimizers = [by_hand] if by_hand is not None else bare_optimizers(optimizer)
    out = Attached(_following(bare, optimizers, wanted, example_inputs), place, by_hand)
    out._listen(model, [] if by_hand is not None else optimizers)
    _open[str(place.resolve())] = out
    return out


def _take(place: Path, *, resume: bool, overwrite: bool) -> None:
    """Make room in a folder, where this process may have a record open; refuse what nobody said may go."""
    if (before := _open.get(str(place.resolve()))) is not None:
        before._make_way(used=overwrite or resume)
    prepare(place, resume=resume, overwrite=overwrite)


def _following(
    model: nn.Module, optimizers: Sequence[Optimizer], wanted: Request, example_inputs: Inputs | None
) -> Follower:
    """What is told of steps; it finds symmetries at once where there is an example, else at the first step."""
    follower = Follower(model, optimizers, wanted)
    if example_inputs is not None:
        follower.example = Example.of(example_inputs)
        print(f"neuralmech: {_counts(follower.find())}")
    return follower


class Attached:
    """A training that is being recorded; see `attach`."""

    def __init__(self, follower: Follower | None, folder: Path, by_hand: Optimizer | None = None) -> None:
        self._follower, self.folder, self._by_hand = follower, folder, by_hand
        self._hooks: list[StepHooks] = []
        self._handles: list[Any] = []
        self._at_exit: Callable[[], None] | None = None
        if follower is not None:
            reference = weakref.ref(self)

            def at_exit() -> None:
                if (mine := reference()) is not None:
                    mine._close(_status_at_exit())

            atexit.register(at_exit)
            self._at_exit = at_exit

    @property
    def symmetries(self) -> Symmetries:
        """What is tracked.

        Raises
        ------
        UserError
            If it is not known yet: give `example_inputs`, or wait for the first step.
        """
        if self._follower is None or self._follower.symmetries is None:
            raise UserError("attach: symmetries are found at the first step, or at once with example_inputs=")
        return self._follower.symmetries

    @property
    def share(self) -> float:
        """Time of tracking so far, relative to that of the loop without it; discovery is in neither.

        It is that between entry and exit of the hooks, and the loop's all else that has passed since the first step:
        data, evaluation, waiting. A loop with steps of a millisecond loses some 5 % more, which the hooks do not see,
        to the thread that writes the record and to caches that it finds cold behind them.
        """
        return 0.0 if self._follower is None else self._follower.spent.share

    @property
    def seconds(self) -> float:
        """Time of tracking so far, between entry and exit of the hooks; discovery and the first rows are not in it."""
        return 0.0 if self._follower is None else self._follower.spent.tracking

    def log(self, **values: Any) -> None:
        """Numbers of a step, such as ``loss`` and ``accuracy``: tensors may stay where they are, nobody waits for them.

        They belong to the step that was taken last or, between the model's call and the optimiser's step, to the one to
        come; of micro-batches of one step they are averaged.

        Raises
        ------
        UserError
            If one of them is no number, or a tensor of several.
        """
        checked = {name: number_of(name, value) for name, value in values.items()}
        if self._follower is not None:
            self._follower.log(checked)

    @contextmanager
    def step(self, lr: float, weight_decay: float = 0.0, momentum: float = 0.0) -> Iterator[None]:
        """Around an update that no ``torch.optim.Optimizer`` takes: ``with tracking.step(lr=0.1): ...``.

        η, λ and β are those of SGD as PyTorch has it, θ ← θ − ηb with b ← βb + g + λθ, unless `attach` was told another
        rule; the gradients g are those that are there at the beginning.

        Raises
        ------
        UserError
            If `attach` was given an optimiser, whose own steps count.
        """
        if self._follower is None or self._follower.is_over:
            yield
            return
        if self._by_hand is None:
            raise UserError(
                "step: attach was given an optimizer, whose steps count; attach with optimizer=None for this"
            )
        self._by_hand.param_groups[0].update(lr=lr, weight_decay=weight_decay, momentum=momentum)
        self._follower.begin()
        self._follower.gradient(self._by_hand)
        yield
        self._follower.end()

    def summary(self) -> str:
        """What is tracked, what was recorded, and what it cost."""
        if self._follower is None:
            return "nothing is recorded by this process: rank 0 does"
        found, spent = self._follower.symmetries, self._follower.spent
        counts = "symmetries are found at the first step" if found is None else _counts(found)
        return f"{self.folder}: {counts}; {self._follower.taken:,} steps; its hooks add {spent.share:.1%} to the loop"

    def close(self) -> None:
        """Write what is left, and follow no further step."""
        self._close("complete")

    def _close(self, status: str) -> None:
        follower = self._follower
        if follower is None or follower.is_over:
            return
        for hooks in self._hooks:
            hooks.remove()
        for handle in self._handles:
            handle.remove()
        if self._at_exit is not None:
            atexit.unregister(self._at_exit)
        follower.close(status)
        if follower.rows:
            added = f"its hooks added {follower.spent.share:.1%} to the loop's time"
            print(f"neuralmech: {follower.rows:,} steps recorded in {self.folder}; {added}")
        elif follower.taken:
            print(f"neuralmech: no step of {follower.taken:,} was recorded in {self.folder}")

    def _make_way(self, *, used: bool) -> None:
        """Another takes the place: this one ends, unless it has rows and nothing says what is to be done with them."""
        if self._follower is not None and (used or not self._follower.has_begun):
            self._close("complete")

    def _listen(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        follower = self._follower
        assert follower is not None
        self._handles.append(model.register_forward_pre_hook(CallHook(follower.see), with_kwargs=True))
        if optimizers:
            self._hooks.append(StepHooks(optimizers, follower))

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close("complete" if error is None else f"stopped: {type(error).__name__}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.summary()}>"


def _status_at_exit() -> str:
    """Of a record that nobody closed: what ended the process, if that was an error; at a prompt none does."""
    error = None if hasattr(sys, "ps1") else getattr(sys, "last_type", None)
    return "complete" if error is None else f"stopped: {error.__name__}"


def _counts(symmetries: Symmetries) -> str:
    counts = {name: len(family) for name, family in symmetries.families.items()}
    if not counts:
        return "no charges: no symmetry was found"
    return f"{sum(counts.values()):,} charges: " + ", ".join(f"{n:,} {name}" for name, n in counts.items())
