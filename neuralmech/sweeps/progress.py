"""What a user sees of jobs side by side: one bar, what runs, and what each job printed once it is over."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from neuralmech.sweeps.pool import Ended
from neuralmech.sweeps.worker import Assignment

MOST = 3  # jobs that are named beside the bar


class Progress:
    """One bar for all jobs, on a terminal; lines of jobs pass above it, never mixed."""

    def __init__(self, total: int, words: Mapping[int, str]) -> None:
        self._words = words
        self._bar = tqdm(total=total, unit="job", dynamic_ncols=True, disable=None)

    def show(self, running: Sequence[Assignment]) -> None:
        """Say what runs."""
        named = [f"{job.number}: {self._words.get(job.number, '')}" for job in running[:MOST]]
        more = [f"{len(running) - MOST} more"] if len(running) > MOST else []
        self._bar.set_postfix_str("; ".join([*named, *more]))

    def pass_on(self, ended: Ended) -> None:
        """Print what a job printed."""
        with tqdm.external_write_mode():
            for text, stream in ((ended.out, sys.stdout), (ended.err, sys.stderr)):
                if text:
                    stream.write(text if text.endswith("\n") else f"{text}\n")
                    stream.flush()
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


@contextmanager
def progress(total: int, words: Mapping[int, str]) -> Iterator[Progress]:
    """A bar as long as jobs are carried out."""
    shown = Progress(total, words)
    try:
        yield shown
    finally:
        shown.close()
