"""Printing never decides over a command: what cannot be printed is lost, and the work goes on."""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from typing import Any

PLAIN = str.maketrans({"–": "-", "—": "-", "−": "-", "·": "*", "…": "...", "θ": "theta", "η": "lr", "→": "->"})


class _Raw(io.FileIO):
    """A file descriptor that takes everything; after an error, nothing reaches it any more.

    Attributes
    ----------
    error
        The first.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write what can be written."""
        size = memoryview(data).nbytes
        if self.error is None:
            try:
                written = super().write(data)
                if written is None:  # it does not block, and somebody else's program reads slowly
                    select.select([], [self], [])
                return written or 0
            except OSError as error:
                self.error = error
        return size


def never_fail() -> None:
    """Let stdout and stderr of this process take everything, whether somebody reads them or not.

    What is closed leads nowhere, lest the next file that is opened has its number and gets what is printed. A character
    that the terminal's encoding does not have is spelt in ones that it has, or escaped. Streams that somebody put there
    stay as they are.
    """
    for fd, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _occupy(fd)
        if name == "stdin" or stream is not getattr(sys, f"__{name}__") or isinstance(_raw(stream), _Raw):
            continue
        encoding = "utf-8" if stream is None else stream.encoding
        is_prompt = name == "stderr" or (stream is not None and stream.line_buffering)
        if stream is not None:
            _flush(stream)
        raw = io.BufferedWriter(_Raw(fd, "w", closefd=False))
        taken = io.TextIOWrapper(raw, encoding, errors="neuralmech", line_buffering=is_prompt)
        setattr(sys, name, taken)
        setattr(sys, f"__{name}__", taken)


def unprinted() -> OSError | None:
    """Why something of stdout was lost, if it was, and its reader had not gone."""
    raw = _raw(sys.stdout)
    if not isinstance(raw, _Raw):
        return None
    sys.stdout.flush()
    return None if isinstance(raw.error, BrokenPipeError) else raw.error


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for letters that a terminal does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return text.translate(PLAIN).encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("neuralmech", _plain)


def _raw(stream: Any) -> Any:
    return getattr(getattr(stream, "buffer", None), "raw", None)


def _flush(stream: Any) -> None:
    """Write what waits there; if it cannot be written, neither can what follows, which is told then."""
    try:
        stream.flush()
    except OSError:
        stream.detach()


def _occupy(fd: int) -> None:
    try:
        os.fstat(fd)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != fd:
            os.dup2(nowhere, fd)
            os.close(nowhere)
