"""A loss of the user's own: a function or module of (outputs, targets), by ``loss._target_`` or in Python."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

from neuralmech.errors import UserError, users_line
from neuralmech.losses.base import Kind, Loss, Tally
from neuralmech.targets import call, locate
from neuralmech.words import Differing

if TYPE_CHECKING:  # see base.py
    import torch
    from jaxtyping import Bool, Float, Shaped
    from torch import Tensor, nn


class Called(Loss):
    """A callable; nothing is assumed of what it ignores.

    Real targets come in the outputs' type, integers as they are. Over several batches it is averaged with the numbers
    of their samples as weights.
    """

    name = "custom"

    def __init__(self, function: Callable[[Tensor, Tensor], Float[Tensor, ""]]) -> None:
        self.function = function

    @property
    def key(self) -> str:
        """Its name in Python."""
        return f"loss {getattr(self.function, '__name__', type(self.function).__name__)}"

    def __call__(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """Its value.

        Raises
        ------
        UserError
            If it raises, or gives something else than one number.
        """
        import torch

        function = self._at(outputs)
        try:
            value = function(outputs, targets.to(outputs.dtype) if targets.is_floating_point() else targets)
        except (UserError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a user's code raises
            where = f" at {place}" if (place := users_line(error)) else ""
            reason = (str(error).strip().splitlines() or ["no reason"])[0]
            raise UserError(
                f"{self.key} raises {type(error).__name__}: {reason}{where} on outputs of shape {tuple(outputs.shape)} "
                f"and targets of shape {tuple(targets.shape)}; mend one of them"
            ) from error
        if not (is_tensor := isinstance(value, torch.Tensor)) or value.shape != () or not value.is_floating_point():
            given = f"a tensor of shape {tuple(value.shape)}" if is_tensor else type(value).__name__
            raise UserError(f"{self.key} gives {given}; return one number, such as the mean over the batch")
        return value

    def tally(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Tally:
        """Sums, without an accuracy."""
        return Tally(float(self(outputs, targets)) * len(outputs), len(outputs))

    def weight_of(self, targets: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """The number of samples."""
        import torch

        return torch.tensor(len(targets))

    def kind(self, targets: Shaped[Tensor, "batch ..."], *, of_tokens: bool) -> Kind:
        """One integer for each sample or token is a class index, everything else a number."""
        is_one = targets.dim() == 1 + of_tokens
        return "labels" if is_one and not targets.is_floating_point() else "values"

    def wrong(self, targets: Shaped[Tensor, "batch ..."], kind: Kind) -> tuple[Bool[Tensor, " batch"], str]:
        """None: NaN may stand for what is missing."""
        import torch

        return torch.zeros(len(targets), dtype=torch.bool, device=targets.device), ""

    def fit(self, outputs: torch.Size, targets: Shaped[Tensor, "batch ..."]) -> None:
        """Nothing: what goes together only the callable knows."""

    def _at(self, outputs: Float[Tensor, "batch ..."]) -> Callable[[Tensor, Tensor], Tensor]:
        """The callable; of a module a copy where the outputs are, in their type."""
        from torch import nn

        if not isinstance(self.function, nn.Module):
            return self.function
        place = outputs.device, outputs.dtype
        if place not in self._placed:
            self._placed[place] = copy.deepcopy(self.function).to(*place)
        return self._placed[place]

    @cached_property
    def _placed(self) -> dict[tuple[torch.device, torch.dtype], nn.Module]:
        return {}


@dataclass(repr=False)
class CustomLoss(Differing, Called):
    """``_target_``: dotted path of a function of (outputs, targets), or of a class that makes one.

    Everything else in the group is arguments: of the function, besides those two, or of the class.
    """

    name: str = "_target_"
    target: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise a `UserError` if there is nothing of that name, or it has parameters, which nobody would train."""
        from torch import nn

        made = self.function
        if isinstance(made, nn.Module) and any(p.requires_grad for p in made.parameters()):
            raise UserError(f"{self.key} has parameters of its own, which are not trained; put them into the model")

    @property
    def key(self) -> str:
        """What the command line calls it."""
        return f"loss._target_={self.target}"

    @cached_property
    def function(self) -> Callable[[Tensor, Tensor], Float[Tensor, ""]]:  # type: ignore[override]
        """What the dotted path names, with its arguments."""
        found = locate("loss", self.target)
        if not isinstance(found, type):
            return partial(found, **self.arguments) if self.arguments else found
        made = call("loss", self.target, self.arguments)
        if not callable(made):
            raise UserError(f"{self.key} makes a {type(made).__name__}, which cannot be called with (outputs, targets)")
        return cast("Callable[[Tensor, Tensor], Tensor]", made)
