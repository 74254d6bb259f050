"""Pick the command, and turn errors into one line and an exit code: 0 done, 2 wrong usage or config, 1 failure."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection
from typing import Any, NoReturn

from neuralmech.cli import train
from neuralmech.cli.application import PROGRAM, TOLD, launch, one_line, told
from neuralmech.cli.claims import symmetries, verify
from neuralmech.cli.commands import analyze, forecast, sweep, watch
from neuralmech.cli.datasets import data
from neuralmech.cli.output import never_fail, unprinted
from neuralmech.cli.ranks import one_of_several, placed
from neuralmech.errors import UserError
from neuralmech.training.process import until_terminated
from neuralmech.words import signal_name

COMMANDS = {
    "train": "train a network and record its charges at every step",
    "analyze": "compare records with theory: tables and figures",
    "sweep": "show what became of each job of a sweep, while it runs, too",
    "watch": "show a run while it is being written",
    "forecast": "predict a run's charges after a change of learning rate or weight decay",
    "symmetries": "show which charges a model has, without training",
    "verify": "check every claimed symmetry on a real batch",
    "data": "fetch and check a data set ahead of a run, or list all",
}
TASKS = {
    "train": train.run,
    "analyze": analyze,
    "sweep": sweep,
    "watch": watch,
    "forecast": forecast,
    "symmetries": symmetries,
    "verify": verify,
    "data": data,
}
WRITING = ("train", "analyze")  # into folders
SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
HELP = """neuralmech: predict how symmetric combinations of a network's parameters move, and measure how well.

Usage: neuralmech COMMAND [arguments]

Commands
{commands}

neuralmech COMMAND --help     options of a command
neuralmech --version          version
eval "$(neuralmech --shell-completion install=bash)"    completion for bash (or zsh, fish)

Start with: neuralmech train experiment=first_light"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    never_fail()
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # processes that libraries start keep the working directory out, too
    if place := placed():
        one_of_several(place, lambda: _carry_out(words))
    _carry_out(words)


def _carry_out(words: list[str]) -> None:
    try:
        with until_terminated():
            _dispatch(words)
        _tell_what_was_lost(words)
    except TOLD as error:
        _fail(*told(error))
    except KeyboardInterrupt as error:
        rows, number = getattr(error, "rows", None), getattr(error, "signal", signal.SIGINT)
        words = [SAID.get(number) or f"stopped by {signal_name(number)}"]
        words += [f"the record holds {rows} steps"] if rows is not None else []
        words += [remedy] if (remedy := getattr(error, "remedy", "")) else []
        _fail("; ".join(words), 128 + number)


def _tell_what_was_lost(words: list[str]) -> None:
    """A full disk takes no output. What a command writes into a folder is there; if text is all it gives, it failed."""
    if error := unprinted():
        text = f"what was printed is lost: standard output cannot be written ({error.strerror or error})"
        if not words or words[0] not in WRITING:
            _fail(text, 1)
        print(f"{PROGRAM}: {text}", file=sys.stderr)


def _fail(message: object, code: int) -> NoReturn:
    print(f"{PROGRAM}: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        listing = "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())
        print(HELP.format(commands=listing))
    elif words[0] in ("--version", "-V") or (words[0] in COMMANDS and "--version" in words):
        from neuralmech import __version__

        print(f"{PROGRAM} {__version__}")
    elif words[0] in ("-sc", "--shell-completion"):
        complete(words, COMMANDS)
    elif words[0] in COMMANDS:
        if words[0] != "train" and (place := placed()):
            if place.rank:
                sys.exit(2)  # the first one says it
            raise UserError(
                f"{words[0]} is for one process, and torchrun started {place.count}; run it without torchrun"
            )
        TASKS[words[0]](words[1:])
    else:
        from neuralmech.checks import check_choice

        check_choice("command", words[0], COMMANDS)


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
