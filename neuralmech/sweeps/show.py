"""The jobs of a sweep as a table, in the terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from neuralmech.compare.looks import Looks, until_ctrl_c
from neuralmech.record.safety import printable
from neuralmech.sweeps.manifest import STATES
from neuralmech.sweeps.states import JobState, is_alive, states_of
from neuralmech.words import own_words, short

STYLES = {"done": "green", "running": "cyan", "failed": "red", "killed": "red", "stopped": "yellow"}
ROOM = 6  # lines of the terminal that a table has besides its jobs


@dataclass(frozen=True, repr=False)
class SweepOptions(Looks):
    """Options of ``neuralmech sweep``; see ``conf/sweep.yaml``."""


def show(
    folder: Path,
    chosen: SweepOptions | None = None,
    console: Console | None = None,
    sleep: Callable[[float], Any] = time.sleep,
) -> None:
    """Print a sweep's jobs; while some run, again and again on a terminal. Ctrl-C ends it.

    Raises
    ------
    RecordError
        If there is no sweep.
    """
    chosen, console = chosen or SweepOptions(), console or Console()
    chosen.check()
    states = states_of(folder)
    if chosen.once or not console.is_terminal or not _runs(states):
        console.print(table(folder, states))
        return
    with until_ctrl_c(), Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(table(folder, states, console.height - ROOM), refresh=True)
            if not _runs(states):
                return
            sleep(chosen.interval)
            states = states_of(folder)


def _runs(states: Sequence[JobState]) -> bool:
    """Whether a job runs, or waits for a command that is there: between two jobs, and before the first, none runs."""
    entries = [state.entry for state in states]
    return any(e.state == "running" or (e.state == "waiting" and is_alive(e.process)) for e in entries)


def table(folder: Path, states: Sequence[JobState], most: int | None = None) -> Group:
    """A line for each job, or of `most`, those that are not done or waiting first; and how many are in each state."""
    shown = list(states)
    if most is not None and len(shown) > max(1, most):
        first = sorted(shown, key=lambda s: (s.entry.state in ("done", "waiting"), s.entry.state, s.entry.number))
        shown = sorted(first[: max(1, most)], key=lambda s: s.entry.number)
    own = dict(zip((s.entry.number for s in states), own_words([s.entry.overrides for s in states]), strict=True))
    rows = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    for heading in ("job", "overrides", "state", "rows", "seconds", "error"):
        rows.add_column(heading, justify="right" if heading in ("job", "rows", "seconds") else "left", overflow="fold")
    for state in shown:
        entry = state.entry
        style = STYLES.get(entry.state, "dim")
        cells = (
            str(entry.number),
            own[entry.number] or entry.folder or "",
            entry.state,
            _rows(state),
            _seconds(entry.seconds),
        )
        texts = [escape(printable(cell)) for cell in (*cells, entry.error or "")]
        rows.add_row(*texts[:2], f"[{style}]{texts[2]}[/]", *texts[3:])
    counts = Counter(state.entry.state for state in states)
    summary = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
    left = f" ({len(states) - len(shown)} more are not shown)" if len(shown) < len(states) else ""
    return Group(rows, f"{escape(short(folder))}: {len(states)} jobs, {summary}{left}")


def _rows(state: JobState) -> str:
    if state.rows is None:
        return ""
    return f"{state.rows:,} / {state.steps:,}" if state.steps and state.entry.state != "done" else f"{state.rows:,}"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.1f}"
