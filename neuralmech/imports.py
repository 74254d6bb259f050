"""Import what is large without losing time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing(library: str, *, for_good: bool = False) -> Iterator[None]:
    """Import a library without looking for garbage: there is none, and looking takes a third of torch's time.

    With `for_good`, what is in memory after its first import is never looked through later either: that of torch's
    modules is a million objects. The command line's process may decide that, a library in somebody's process may not.
    """
    was_enabled, is_first = gc.isenabled(), library not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if is_first and (for_good or gc.get_freeze_count()):
            gc.freeze()
        if was_enabled:
            gc.enable()
