"""A process that carries out one job after another, as it is told through a connection."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from neuralmech.errors import users_line
from neuralmech.training.process import until_terminated
from neuralmech.words import kind_and_line


class Assignment(NamedTuple):
    """A job as it is sent: its number, and its words."""

    number: int
    overrides: tuple[str, ...]


class Answer(NamedTuple):
    """What a worker answers: a value, or the signal that stopped the job, or the error that nobody foresaw.

    Such an error comes in a line, and with its traceback.
    """

    value: Any = None
    stopped: int | None = None
    error: str | None = None
    trace: str = ""


def main(connection: int, lifeline: int) -> None:
    """Do jobs until nobody sends any more; `lifeline` is closed when the process that sends them is gone."""
    faulthandler.enable()
    _die_with(lifeline)
    with Connection(connection) as channel:
        try:
            do = pickle.loads(channel.recv_bytes())
            _make_ready(do)
            while True:
                channel.send_bytes(_carried_out(do, channel.recv()))
        except EOFError:
            return


def _make_ready(do: Any) -> None:
    """Let a task that can get ready for jobs do so before there is one; the first will say what goes wrong there."""
    with suppress(Exception):
        getattr(do, "make_ready", bool)()


def _die_with(lifeline: int) -> None:
    """Stop as a signal would make us, once the other end is closed: what is being done is kept, and can go on."""

    def wait() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="lifeline").start()


def _carried_out(do: Any, job: Assignment) -> bytes:
    """Do a job; what became of it, ready to be sent."""
    try:
        with until_terminated():
            answer = Answer(do(job))
        return pickle.dumps(answer)
    except KeyboardInterrupt as error:
        return pickle.dumps(Answer(stopped=getattr(error, "signal", signal.SIGINT)))
    except BaseException as error:  # noqa: BLE001  (whatever a user's code raises ends this job, and no other)
        place = users_line(error)
        text = kind_and_line(error) + (f" at {place}" if place else "")
        return pickle.dumps(Answer(error=text, trace=traceback.format_exc()))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
