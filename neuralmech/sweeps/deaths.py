"""What ended a process that said nothing itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from neuralmech.errors import is_librarys
from neuralmech.words import short, signal_name

FATAL = "Fatal Python error"  # how what `faulthandler` writes begins
CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP")
WORDS = {
    "SIGSEGV": "segmentation fault (SIGSEGV)",
    "SIGKILL": "killed by SIGKILL, by somebody or because memory was short",
}


@dataclass(frozen=True)
class Death:
    """How a process ended: the state of its job, and the cause for people."""

    state: str
    cause: str


def death_of(code: int, last_words: str) -> Death:
    """What an exit code and the last words on stderr tell.

    Examples
    --------
    >>> death_of(-9, "").cause
    'killed by SIGKILL, by somebody or because memory was short'
    >>> death_of(3, "")
    Death(state='failed', cause='its process ended with exit code 3')
    """
    if code >= 0:
        return Death("failed", f"its process ended with exit code {code}")
    name = signal_name(-code)
    cause = WORDS.get(name, f"killed by {name}")
    if name not in CRASHES:
        return Death("killed", cause)
    place = _place(last_words)
    return Death("failed", f"{cause} at {place}" if place else cause)


def _place(words: str) -> str:
    """``file:line`` of the innermost code in a dump of the stack that is no library's."""
    dump = words.rpartition(FATAL)[2].partition("Current thread")[2].partition("\n\n")[0]  # it lists the others first
    for file, line in re.findall(r'^  File "(.+)", line (\d+) in', dump, flags=re.MULTILINE):
        if Path(file).is_file() and not is_librarys(Path(file)):
            return f"{short(file)}:{line}"
    return ""


def without_dump(words: str) -> str:
    """Words on stderr less the dump of the stack."""
    return words.partition(FATAL)[0]
