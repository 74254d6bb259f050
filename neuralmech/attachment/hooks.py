"""When a model is called in training, and when optimisers take a step, of which somebody else is in charge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

Called = Callable[[tuple[Any, ...], dict[str, Any]], object]


class Steps(Protocol):
    """What is told of steps; one may be taken by several optimisers, one after the other."""

    def begin(self) -> None:
        """No optimiser has moved anything yet."""
        ...

    def gradient(self, optimizer: Optimizer, *, may_change: bool = False) -> None:
        """An optimiser is about to use the gradients that are there now, and others later on if they may change."""
        ...

    def end(self) -> None:
        """All have moved what they move."""
        ...


class StepHooks:
    """Tell `steps` of each step of some optimisers.

    A step is over when each of them has stepped, or when one is about to step once more. Where an optimiser is given a
    closure the gradients are there once that returns; of the first call, if there are more.
    """

    def __init__(self, optimizers: Sequence[Optimizer], steps: Steps) -> None:
        self._steps, self._count = steps, len(optimizers)
        self._done: list[Optimizer] | None = None  # of the step that has begun
        self._handles = [
            handle
            for optimizer in optimizers
            for handle in (
                optimizer.register_step_pre_hook(self._before),
                optimizer.register_step_post_hook(self._after),
            )
        ]

    def remove(self) -> None:
        """Tell of no further step; one that has begun is over."""
        for handle in self._handles:
            handle.remove()
        self._finish()

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done:
            self._steps.end()

    def _before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._done is not None and any(o is optimizer for o in self._done):
            self._finish()
        if self._done is None:
            self._done = []
            self._steps.begin()
        has_place = len(args) > 1
        closure = args[1] if has_place else kwargs.get("closure")
        if closure is None:
            self._steps.gradient(optimizer)
            return None
        seen = self._seen(optimizer, closure)
        if has_place:
            return (*args[:1], seen, *args[2:]), kwargs
        return args, {**kwargs, "closure": seen}

    def _seen(self, optimizer: Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
        is_first = True

        def called() -> Any:
            nonlocal is_first
            out = closure()
            if is_first:
                is_first = False
                self._steps.gradient(optimizer, may_change=True)
            return out

        return called

    def _after(self, optimizer: Optimizer, *_: object) -> None:
        if self._done is None:  # tracking began in the middle of it
            return
        self._done.append(optimizer)
        if len(self._done) == self._count:
            self._finish()


class CallHook:
    """Tells of calls of a model in training, before they are made; of a copy, also a saved one, it tells nobody."""

    is_of_tracking = True

    def __init__(self, called: Called | None = None) -> None:
        self._called = called

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call with these arguments."""
        if self._called is not None and module.training and torch.is_grad_enabled():
            self._called(args, kwargs)

    def __deepcopy__(self, memo: object) -> CallHook:
        return CallHook()

    def __reduce__(self) -> tuple[type[CallHook], tuple[()]]:
        return CallHook, ()
