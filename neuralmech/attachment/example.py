"""A user's model as discovery takes it: tensors in, one output or the value of a loss out; names of parameters stay."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from neuralmech.errors import UserError, users_line
from neuralmech.losses import Called, CrossEntropy, Loss, as_loss
from neuralmech.outputs import output_of
from neuralmech.words import first_line

WRAPPERS = ("module", "_orig_mod")  # what DistributedDataParallel and torch.compile call the model inside

TENSOR = object()

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
LossOfOutput = str | Loss | Callable[[Any], Tensor]


class Example(NamedTuple):
    """What a model is called with, apart: tensors, and how to call it with others in their place.

    Attributes
    ----------
    tensors
        Those among the arguments, also in tuples, lists and dicts, detached.
    leaves
        All that is no container, `TENSOR` where a tensor goes.
    structure
        How positional and keyword arguments are made of them.
    """

    tensors: tuple[Tensor, ...]
    leaves: tuple[Any, ...]
    structure: TreeSpec

    @staticmethod
    def of(inputs: Inputs) -> Example:
        """Inputs as a user gives them: a tensor, a tuple of positional arguments, or a dict of keyword arguments.

        Raises
        ------
        UserError
            If there is no tensor among them.
        """
        if isinstance(inputs, Mapping):
            return Example.of_call((), inputs)
        return Example.of_call(inputs if isinstance(inputs, (tuple, list)) else (inputs,), {})

    @staticmethod
    def of_call(positional: Sequence[Any], keywords: Mapping[str, Any]) -> Example:
        """The arguments of a call."""
        leaves, structure = tree_flatten((tuple(positional), dict(keywords)))
        found = tuple(x.detach() for x in leaves if isinstance(x, Tensor))
        if not found:
            raise UserError("example_inputs: there is no tensor among them; give what the model is called with")
        return Example(found, tuple(TENSOR if isinstance(x, Tensor) else x for x in leaves), structure)

    @property
    def samples(self) -> int:
        """How many there are of the first tensor."""
        return len(self.tensors[0]) if self.tensors[0].dim() else 1

    def arguments(self, tensors: Sequence[Shaped[Tensor, "batch ..."]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of a call with these tensors."""
        places = iter(tensors)
        filled = [next(places) if leaf is TENSOR else leaf for leaf in self.leaves]
        return tree_unflatten(filled, self.structure)


class Judged(Called):
    """The value that the model returns is the loss: a user's function was put behind its outputs."""

    def __init__(self) -> None:
        super().__init__(lambda outputs, targets: outputs)


def inner(model: nn.Module) -> nn.Module:
    """The model that others wrap, whose parameters have the names that the user knows.

    Raises
    ------
    UserError
        If it is no module.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"attach: {type(model).__name__} is no torch.nn.Module; give the network itself")
    for name in WRAPPERS:
        while isinstance(wrapped := getattr(model, name, None), nn.Module) and len(list(model.children())) == 1:
            model = wrapped
    return model


def adapted(model: nn.Module, example: Example, loss: LossOfOutput) -> tuple[nn.Module, Loss]:
    """The same model, called with the example's tensors; behind it a loss of its outputs, if that is a function.

    It shares parameters and modules with the user's, which stays as it is. It is of a class of its own and no module
    around it, so that a copy of it is whole and its parameters have their names.
    """
    judge = None if isinstance(loss, (str, Loss)) else loss
    kind, original = type(model), _forward_of(model)

    def forward(self: nn.Module, *tensors: Tensor) -> Any:
        positional, keywords = example.arguments(tensors)
        out = original(self, *positional, **keywords)
        return out if judge is None else _judged(judge, out)

    twin = copy.copy(model)
    twin.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    vars(twin).pop("forward", None)
    for hooks in ("_forward_pre_hooks", "_forward_hooks"):
        vars(twin)[hooks] = type(vars(model)[hooks])(
            {k: hook for k, hook in vars(model)[hooks].items() if not getattr(hook, "is_of_tracking", False)}
        )
    if judge is not None:
        return twin, Judged()
    assert isinstance(loss, (str, Loss))
    return twin, as_loss(loss)


def _judged(judge: Callable[[Any], Tensor], out: Any) -> Tensor:
    try:
        signature(judge.forward if isinstance(judge, nn.Module) else judge).bind(out)
    except TypeError as error:
        raise UserError(
            f"attach: loss= is called with what the model returns, and nothing else ({error}); give a function such as "
            "lambda out: criterion(out, targets), with targets as many as out has samples"
        ) from None
    except ValueError:  # a built-in one, which does not say what it takes
        pass
    return judge(out)


def _forward_of(model: nn.Module) -> Callable[..., Any]:
    """``forward`` as a function of a model and its arguments, also where somebody put another in its place.

    accelerate does, for mixed precision, and keeps the one that was there.

    Raises
    ------
    UserError
        If that is a plain function: whatever model it calls is not the copy that is measured.
    """
    given = vars(model).get("_original_forward", vars(model).get("forward"))
    if given is None:
        return type(model).forward
    if getattr(given, "__self__", None) is not model:
        raise UserError("attach: model.forward was replaced by a plain function; attach before, or make it a method")
    return given.__func__


@contextmanager
def only_trained(model: nn.Module, names: set[str]) -> Iterator[None]:
    """All other parameters are frozen, as they are if no optimiser has them."""
    held = [p for name, p in model.named_parameters() if name not in names and p.requires_grad]
    for p in held:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in held:
            p.requires_grad_()


@torch.no_grad()
def some_targets(
    model: nn.Module, tensors: tuple[Shaped[Tensor, "batch ..."], ...], loss: Loss
) -> Shaped[Tensor, "batch ..."]:
    """Targets of the kind that a loss takes, at random: claims hold whatever they are.

    Raises
    ------
    UserError
        If the model, with a function behind it, cannot be called with such inputs, or gives no one output.
    """
    out = _called(model, tensors, "what loss= returns" if isinstance(loss, Called) else type(model).__name__)
    if isinstance(loss, Called):
        return torch.zeros(1, device=tensors[0].device)
    generator = torch.Generator().manual_seed(0)
    if isinstance(loss, CrossEntropy):
        along = 2 if out.dim() == 3 else 1
        if out.dim() <= along:
            raise UserError(f"attach: the model returns {tuple(out.shape)}, no logits; give loss='mse', or a function")
        shape = [n for d, n in enumerate(out.shape) if d != along]
        return torch.randint(out.shape[along], shape, generator=generator).to(out.device)
    return torch.rand(out.shape, generator=generator).to(out)


def _called(model: nn.Module, tensors: tuple[Tensor, ...], what: str) -> Tensor:
    """What a copy of the model gives."""
    try:
        with torch.random.fork_rng():
            return output_of(copy.deepcopy(model).train()(*tensors), what)
    except UserError as error:
        raise UserError(f"{error}; or give attach loss=, a function of what the model returns") from None
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a user's code raises
        where = f" at {place}" if (place := users_line(error)) else ""
        raise UserError(
            f"attach: a copy of {type(model).__name__} cannot be called ({type(error).__name__}: "
            f"{first_line(error)}{where}); give example_inputs as the loop calls it, a tuple of positional or a dict "
            "of keyword arguments, and loss= what takes its output"
        ) from error
