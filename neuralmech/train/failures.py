"""What ends a run that cannot write: one line that says what to do, and everything committed is kept."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neuralmech.errors import RunError
from neuralmech.record import FAILURE_FILE, BackgroundWriter
from neuralmech.record.storage import FULL, write_whole
from neuralmech.words import first_line, override_word


@contextmanager
def told(record: BackgroundWriter) -> Iterator[None]:
    """A disk that fails, or the thread that writes, ends the run with what was committed.

    Raises
    ------
    RunError
        In place of either.
    """
    folder = record.path.parent
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            record.close("stopped: the disk failed")
        what = f"{error.filename or record.path}: {error.strerror or error}"
        raise RunError(f"{what}; {_remedy(error, folder)}") from error
    except Exception as error:
        if error is not record.error:
            raise
        with suppress(Exception):
            record.close("stopped: the record could not be written")
        reason = "; ".join([f"{type(error).__name__}: {first_line(error)}", *_save_traceback(error, folder)])
        raise RunError(
            f"{record.path} could not be written ({reason}); "
            f"what was committed is safe: neuralmech train {override_word('resume', folder)} continues"
        ) from error


def _remedy(error: OSError, folder: Path) -> str:
    """What to do about a disk that failed."""
    if not folder.exists():
        return "the run folder was deleted or moved while the run wrote to it; start again, or resume= where it is now"
    what = "make room" if error.errno in FULL else "mend the disk"
    return f"what was committed is safe: {what}, then neuralmech train {override_word('resume', folder)}"


def _save_traceback(error: Exception, folder: Path) -> list[str]:
    """Leave the traceback beside the record; returns where, if the disk takes it."""
    path = folder / FAILURE_FILE
    with suppress(OSError):
        write_whole(path, "".join(traceback.format_exception(error)).encode(errors="replace"))
        return [f"traceback in {path}"]
    return []
