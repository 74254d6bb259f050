"""Say what is being waited for, once it takes long."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

AFTER, AGAIN = 5.0, 30.0  # seconds until the first line, and until a step that goes on is named once more


@contextmanager
def patience(task: str, after: float = AFTER, again: float = AGAIN) -> Iterator[Callable[[str], None]]:
    """Give a function that takes the name of each step of a task; after a while, lines on stderr name the step.

    A thread prints, because a step may be one long call. A task that ends before prints nothing.
    """
    stream, start = sys.stderr, monotonic()  # torch.export's own words are kept from stderr, ours are not
    changed, ended, step = threading.Condition(), False, "starting"

    def enter(name: str) -> None:
        nonlocal step
        with changed:
            step = name
            changed.notify()

    def tell() -> None:
        with changed:
            changed.wait_for(lambda: ended, after)
            while not ended:
                said = step
                print(f"neuralmech: {task}: {said} ({monotonic() - start:.0f} s so far)", file=stream, flush=True)
                changed.wait_for(lambda: ended or step != said, again)  # noqa: B023  (called here alone)

    teller = threading.Thread(target=tell, daemon=True, name="patience")
    teller.start()
    try:
        yield enter
    finally:
        with changed:
            ended = True
            changed.notify()
        teller.join()
