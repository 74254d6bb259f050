"""Shell completion: ``neuralmech --shell-completion``."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from neuralmech.cli.application import launch
from neuralmech.errors import UserError


def complete(words: list[str], commands: Collection[str]) -> None:
    """Complete first the command, then whatever Hydra offers for it."""
    if len(words) < 2:
        raise UserError("--shell-completion needs install=SHELL; SHELL is bash, zsh or fish")
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()[1:]
    command = typed[0] if typed and typed[0] in commands and (len(typed) > 1 or line.endswith(" ")) else None
    if any(w.startswith("query=") for w in words) and command is None:
        print(" ".join(c for c in commands if c.startswith(typed[0] if typed else "")))
        return
    if command:
        program, _, rest = line.partition(command)
        os.environ["COMP_LINE"] = program.rstrip() + rest
    launch(_nothing, command or "train", words)


def _nothing(_: Any) -> None:
    """Task of an application that only completes words."""
