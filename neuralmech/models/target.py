"""A user's own module, named by ``model._target_``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from neuralmech.errors import UserError
from neuralmech.targets import call, locate


@dataclass
class TargetOptions:
    """``_target_``: dotted path of a class or function; everything else in the group is its arguments."""

    name: str = "_target_"
    target: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise a `UserError` if there is nothing of that name."""
        locate("model", self.target)


def build_target(options: TargetOptions, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Call the target with its arguments.

    Raises
    ------
    UserError
        If the call fails or does not give a module.
    """
    model = call("model", options.target, options.arguments)
    if not isinstance(model, nn.Module):
        raise UserError(f"model._target_={options.target} gives a {type(model).__name__}, not a torch.nn.Module")
    return model
