"""Watch a run: look at its record again and again until it ends, and show each look on one screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from neuralmech.compare.gather.runs import cut_off, find_runs, look
from neuralmech.compare.looks import Looks, until_ctrl_c
from neuralmech.compare.measure.glance import Glance, Looking
from neuralmech.compare.show.watching import Look, screen
from neuralmech.errors import UserError
from neuralmech.record import FILE_NAME, Record, RecordError
from neuralmech.record.files import is_in_use, parts_of
from neuralmech.record.opening import glimpse
from neuralmech.words import short

SECONDS = 0.2  # of reading a record that is being written: longer, and the next write comes between


@dataclass(frozen=True, repr=False)
class WatchOptions(Looks):
    """Options of ``neuralmech watch``; see ``conf/watch.yaml``."""

    sites: int = 4

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        sites = self.sites
        if isinstance(sites, bool) or not isinstance(sites, int) or sites < 1:
            raise UserError(f"sites={sites} must be a whole number of sites of each family, 1 or more")


class Watched:
    """A run that is looked at now and then; a look reads only what is new since the last.

    Raises
    ------
    RecordError
        If there is no such folder.
    UserError
        If it is that of a sweep.
    """

    def __init__(self, run: str | Path) -> None:
        found = find_runs(Path(run), live=True)
        if found.is_sweep and found.jobs:
            begun = [job for job in found.jobs if job.status == "running"] or found.jobs
            raise UserError(f"{run} holds {len(found.jobs)} runs; watch one of them, such as {short(begun[0].path)}")
        if found.is_sweep and any(found.folder.iterdir()) and not is_in_use(found.folder):
            raise RecordError(f"{run} holds no record; give a run folder that `neuralmech train` wrote")
        self._top, self._folder, self._looking = found.folder, found.folder, Looking()
        self._seen, self._stamp, self._last = Look("", "", None), 0, (0, 0.0)
        self._seconds, self.is_over = SECONDS, False

    def look(self) -> Look:
        """The run as it is now; `is_over` says whether anything can follow.

        Raises
        ------
        RecordError
            If its record is damaged, or the run ended without one.
        """
        self._folder = _part(self._top)
        path = self._folder / FILE_NAME
        is_held = is_in_use(self._folder)  # before it is read: what is written last is read after nobody held it
        stamp = path.stat().st_mtime_ns if path.is_file() else 0
        if not stamp:
            self._seen = self._without_record()
        elif stamp != self._stamp or not is_held or self._is_behind:
            self._seconds = SECONDS if is_held else float("inf")
            try:
                self._seen = glimpse(path, lambda record: self._read(record, is_held=is_held))
                self._stamp = stamp
            except RecordError:
                if not is_held or self._seen.glance is None:
                    raise
        return self._seen

    @property
    def _is_behind(self) -> bool:
        return self._seen.glance is None or self._seen.glance.compared < 1

    def _without_record(self) -> Look:
        job = look(self._folder)
        self.is_over = job.status != "waiting"
        if self.is_over:
            raise RecordError(f"{self._top} has nothing to show ({job.reason})")
        return Look(short(self._top), job.reason, None)

    def _read(self, record: Record, *, is_held: bool) -> Look:
        goes_on = record.status == "running"
        status = cut_off(record.path.parent) if goes_on and not is_held else record.status
        self.is_over = not is_held
        if not record.rows:
            if self.is_over:
                raise RecordError(f"{self._top} has nothing to show ({status})")
            return Look(short(self._top), "no rows are committed yet", None)
        seconds, self._seconds = self._seconds, self._seconds / 2  # less, if the next write comes between
        found = self._looking.look(record, ended=not is_held, seconds=seconds)
        return Look(short(self._top), status, found, self._speed(found) if goes_on else None)

    def _speed(self, found: Glance) -> float | None:
        """Steps per second since the last look that found more."""
        now, (step, then) = time.monotonic(), self._last
        if found.step > step:
            self._last = found.step, now
        return (found.step - step) / (now - then) if then and found.step > step else self._seen.speed


def _part(folder: Path) -> Path:
    """The record that is being written: an attached run begins another where what is trained changes."""
    return [folder, *parts_of(folder)][-1]


def watch(
    run: str | Path,
    chosen: WatchOptions | None = None,
    console: Console | None = None,
    sleep: Callable[[float], Any] = time.sleep,
) -> None:
    """Show a run in the terminal until it ends; a finished one once. Ctrl-C ends it.

    Raises
    ------
    RecordError
        If there is no run, or it ended without a record.
    UserError
        If the folder is that of a sweep, or an option is wrong.
    """
    chosen, console = chosen or WatchOptions(), console or Console()
    chosen.check()
    watched = Watched(run)
    with until_ctrl_c():
        seen = watched.look()
        if chosen.once or watched.is_over:
            console.print(screen(seen, console, chosen.sites))
        elif console.is_terminal:
            _refreshed(watched, seen, chosen, console, sleep)
        else:
            _printed(watched, seen, chosen, console, sleep)


def _refreshed(
    watched: Watched, seen: Look, chosen: WatchOptions, console: Console, sleep: Callable[[float], Any]
) -> None:
    """Write every look over the one before."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(screen(seen, console, chosen.sites, console.height), refresh=True)
            if watched.is_over:
                return
            sleep(chosen.interval)
            seen = watched.look()


def _printed(
    watched: Watched, seen: Look, chosen: WatchOptions, console: Console, sleep: Callable[[float], Any]
) -> None:
    """Print every look that shows something new, into a file or a pipe."""
    before = None
    while True:
        if not seen.says_as(before):
            console.print(screen(seen, console, chosen.sites))
        if watched.is_over:
            return
        sleep(chosen.interval)
        before, seen = seen, watched.look()
