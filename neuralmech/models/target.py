"""A user's own module, named by ``model._target_``."""

from __future__ import annotations

import pydoc
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from neuralmech.errors import UserError


@dataclass
class TargetOptions:
    """``_target_``: dotted path of a class or function; everything else in the group is its arguments."""

    name: str = "_target_"
    target: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise a `UserError` if there is nothing of that name."""
        locate(self.target)


def locate(target: str) -> Any:
    """Import what a dotted path names.

    Raises
    ------
    UserError
        If it cannot be imported or is not callable.
    """
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"model._target_={target} cannot be imported: {error.value}") from error
    if not callable(found):
        raise UserError(f"model._target_={target} names nothing that can be called; is its package installed?")
    return found


def build_target(options: TargetOptions, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Call the target with its arguments.

    Raises
    ------
    UserError
        If the call fails or does not give a module.
    """
    try:
        model = locate(options.target)(**options.arguments)
    except TypeError as error:
        raise UserError(f"model._target_={options.target}: {error}; set its arguments as model.NAME=…") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"model._target_={options.target} gives a {type(model).__name__}, not a torch.nn.Module")
    return model
