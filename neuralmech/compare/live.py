"""The view of `watch` in a notebook: it updates itself beside whatever the notebook goes on to do."""

from __future__ import annotations

import sys
from importlib import import_module
from io import StringIO
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rich.console import Console

from neuralmech.compare.show.watching import screen
from neuralmech.compare.watch import Watched, WatchOptions
from neuralmech.record import RecordError

WIDTH = 100  # letters of a line in a notebook
STYLE = "line-height:1.15;font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace"


class LiveView:
    """One screen of a run, as text (`str`) and as HTML; made by `live`."""

    def __init__(self, run: str | Path, chosen: WatchOptions) -> None:
        chosen.check()
        self._watched, self._chosen = Watched(run), chosen
        self._thread: Thread | None = None
        self._handle: Any = None
        self._html: Any = None
        self._was_shown = False
        self._stopped = Event()
        self._trouble = ""
        self._seen = self._watched.look()

    @property
    def is_over(self) -> bool:
        """Whether the run has ended: nothing changes any more."""
        return self._watched.is_over

    def look(self) -> LiveView:
        """Look again, now.

        Raises
        ------
        RecordError
            If the record is damaged, or the run ended without one.
        """
        self._seen = self._watched.look()
        return self

    def stop(self) -> None:
        """Leave the view as it is."""
        self._stopped.set()

    def show(self) -> None:
        """Show it: in a notebook it updates itself until the run ends or `stop`, elsewhere it is printed once."""
        if not _in_notebook():
            print(self)
            return
        shown = import_module("IPython.display")
        self._html = shown.HTML
        self._handle = shown.display(self._html(self._repr_html_()), display_id=True)
        if not self.is_over and not self._chosen.once:
            self._thread = Thread(target=self._follow, name="neuralmech live", daemon=True)
            self._thread.start()

    def _follow(self) -> None:
        while not (self.is_over or self._stopped.wait(self._chosen.interval)):
            try:
                self.look()
            except RecordError as error:
                self._trouble = str(error)
                self._stopped.set()
            self._handle.update(self._html(self._repr_html_()))

    def _console(self, **options: Any) -> Console:
        # In a kernel rich would show by itself, once more, whatever is printed.
        console = Console(file=StringIO(), width=WIDTH, record=True, force_jupyter=False, **options)
        console.print(screen(self._seen, console, self._chosen.sites))
        if self._trouble:
            console.print(self._trouble, markup=False, highlight=False)
        return console

    def __str__(self) -> str:
        return self._console().export_text().rstrip()

    def __repr__(self) -> str:
        look = self._seen.glance
        return f"<view of {self._seen.folder}: {f'step {look.step:,}, ' if look else ''}{self._seen.status}>"

    def _repr_html_(self) -> str:
        console = self._console(force_terminal=True, color_system="truecolor")
        return console.export_html(inline_styles=True, code_format=f'<pre style="{STYLE}">{{code}}</pre>')

    def _ipython_display_(self) -> None:
        """What a cell shows that ends with it: nothing the first time, for then it is there already."""
        if self._was_shown or self._handle is None:
            self.show()
        self._was_shown = True


def live(run: str | Path, interval: float = 2.0, sites: int = 4) -> LiveView:
    """Show a run that is being written: loss, charges, effective learning rates, the exact law's error so far.

    In a notebook the view updates itself, in a thread of its own, until the run ends or its `LiveView.stop`: the cell
    does not wait, so that the run may be one that this notebook trains. Elsewhere it is printed once.

    Parameters
    ----------
    run
        A run folder, of ``neuralmech train`` or of a training that `attach` follows.
    interval
        Seconds between two looks.
    sites
        Of each family, evenly spread.

    Raises
    ------
    RecordError
        If there is no run, or it ended without a record.
    UserError
        If the folder is that of a sweep, or a number is impossible.

    Examples
    --------
    ``view = neuralmech.live("outputs/run")``; ``view.look()`` refreshes it by hand.
    """
    view = LiveView(run, WatchOptions(interval=interval, sites=sites))
    view.show()
    return view


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this: IPython in a terminal has nothing that could be updated."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None) is not None
