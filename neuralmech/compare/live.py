"""Follow runs that are still being written: analyse again whenever there is more to see."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from neuralmech.compare.analysis import Analysis, compare_runs
from neuralmech.compare.files import publish
from neuralmech.compare.options import Options
from neuralmech.compare.runs import Runs, find_runs
from neuralmech.record import FILE_NAME


def follow(
    folder: Path,
    chosen: Options,
    show: Callable[[Analysis], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Analysis:
    """Analyse, write and show every `chosen.every` seconds until no job is being written any more.

    Each look takes a consistent copy of every record that is being written, so the tables are those of one
    moment of each run. A job that has not committed rows yet is waited for.

    Raises
    ------
    RecordError
        If all jobs have ended and none left anything to analyse.
    UserError
        If the folder cannot be written.
    """
    seen, analysis = None, None
    while True:
        found = find_runs(folder, live=True)
        now = _fingerprint(found)
        # Between two jobs of a sweep nothing is written: it has ended when two looks in a row say so.
        if analysis and not found.is_running and now == seen:
            return analysis
        if now != seen and (found.readable or not found.is_running):
            analysis = publish(compare_runs(found, chosen), chosen)
            show(analysis)
        seen = now
        sleep(chosen.every)


def _fingerprint(found: Runs) -> object:
    """Changes whenever a record grows, a job appears, or one ends."""
    records = [job.path / FILE_NAME for job in found.jobs]
    sizes = [p.stat().st_mtime_ns if os.path.exists(p) else 0 for p in records]  # noqa: PTH110  (of one not ours, too)
    return [(job.name, job.status, size) for job, size in zip(found.jobs, sizes, strict=True)]
