"""``torchrun … -m neuralmech train``: one command in several processes, of which the first one writes and speaks."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from time import monotonic, sleep
from typing import TYPE_CHECKING, NoReturn

from neuralmech.cli.application import TOLD, one_line, told
from neuralmech.errors import RunError, UserError, users_line
from neuralmech.imports import importing
from neuralmech.signals import SIGNALS
from neuralmech.training.place import Rank, placed
from neuralmech.words import kind_and_line

if TYPE_CHECKING:  # torch is not imported where there is one process and the options are wrong
    from torch.distributed import Store

    from neuralmech.training.together import Alone

FAILED = "failed"  # key of how many processes have failed
GRACE = 1.0  # seconds that others leave the first process to say what is wrong with all of them

_present: ContextVar[Alone | None] = ContextVar("processes", default=None)


def present() -> Alone | None:
    """The processes that this one is among, if there are several."""
    return _present.get()


def processes() -> Alone:
    """Those of the run that this process is about to begin."""
    from neuralmech.training.together import ALONE

    return present() or ALONE


def one_of_several(place: Rank, work: Callable[[], None]) -> NoReturn:
    """Do what a process does and end it, with its exit code, whatever libraries still have in hand.

    A thread of gloo may outlive the group that it is of, and abort an interpreter that ends beside it.
    """
    if place.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    code = 1
    try:
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001  (a mistake of ours, which Python would show in the same way)
        traceback.print_exc()
    _be_deaf()
    with suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def trained(place: Rank, words: list[str], train: Callable[[list[str]], None]) -> None:
    """Train as one of several processes; only the first one that fails says why."""
    with importing("torch", for_good=True):
        from neuralmech.training.together import LostError, joined

    with joined(place) as (together, store), _hushed(place.rank > 0) as speak:
        token = _present.set(together)
        try:
            if together.is_first:
                train(words)
            else:
                from neuralmech.training.loop import follow

                follow(together)
        except KeyboardInterrupt as error:
            _be_deaf()
            if together.is_first:
                raise
            raise SystemExit(128 + getattr(error, "signal", 2)) from None
        except LostError:
            _be_deaf()
            raise SystemExit(1) from None
        except Exception as error:  # noqa: BLE001  (one process says what any of them failed of)
            _be_deaf()
            known = error if isinstance(error, TOLD) else None
            if not _is_first_to_fail(place, store):
                raise SystemExit(told(known)[1] if known else 1) from None
            speak()
            raise _named(error, place) from None
        finally:
            _present.reset(token)


def _be_deaf() -> None:
    """Let nothing keep this process, which ends, from what it has to say: torchrun tells all to end at once."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _named(error: Exception, place: Rank) -> Exception:
    """A failure of one process, which names it; what is wrong with all of them the first one has said."""
    if isinstance(error, TOLD) and place.rank == 0:
        return error
    if isinstance(error, TOLD):
        text, code = told(error)
    else:
        where = f" at {found}" if (found := users_line(error)) else ""
        text, code = f"{kind_and_line(error)}{where}", 1
    return (UserError if code == 2 else RunError)(f"rank {place.rank} of {place.count}: {one_line(text)}")


def _is_first_to_fail(place: Rank, store: Store) -> bool:
    """Whether no other process has said why it failed. Where the store is gone, somebody has to."""
    end = monotonic() + (GRACE if place.rank else 0.0)
    try:
        while monotonic() < end and not store.check([FAILED]):
            sleep(0.05)
        return store.add(FAILED, 1) == 1
    except RuntimeError:
        return True


@contextmanager
def _hushed(is_quiet: bool) -> Iterator[Callable[[], None]]:
    """Keep a process from the terminal, until it has to say what went wrong; gives what lets it speak."""
    stderr = sys.stderr
    if is_quiet:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123

    def speak() -> None:
        sys.stderr = stderr

    yield speak


__all__ = ["one_of_several", "placed", "present", "processes", "trained"]
