"""The files of an attached training's record, written behind its loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic

from neuralmech.attachment.folder import Log
from neuralmech.loggers import Feed
from neuralmech.record import BackgroundWriter, RecordError, RecordWriter, open_record
from neuralmech.record.schema import NORMS
from neuralmech.track import Tracker

# Seconds between commits. Nobody tells a loop of others before it is killed, so they are as short as costs little: a
# commit writes a block that is not full once more, which may take the writer's thread one part in so many.
COMMIT_SECONDS, MOST_COMMIT_SECONDS, SPARE = 1.0, 60.0, 200


class Writing:
    """A tracker's rows on their way to a folder, and what is logged beside them.

    Attributes
    ----------
    log
        Of what users log.
    """

    def __init__(self, folder: Path) -> None:
        self.log, self._folder = Log(folder), folder
        self._writer: BackgroundWriter | None = None
        self._feed: Feed | None = None
        self._committed = monotonic()

    def open(
        self, tracker: Tracker, attributes: Mapping[str, object], listen: Callable[[], Feed | None], *, extend: bool
    ) -> None:
        """Open the record, with these attributes, or with `extend` the one that is there, and what hears of its rows.

        Raises
        ------
        RecordError
            If the record that is to be continued has other charges.
        """
        if extend:
            self._refuse_others(tracker)
            writer = RecordWriter.extend(self._folder)
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            writer = RecordWriter(self._folder, attributes, tracker.layouts(), tracker.block.rows)
        self._feed = listen()
        self._writer = BackgroundWriter(writer, self._feed.hear if self._feed else None)

    def _refuse_others(self, tracker: Tracker) -> None:
        """Raise a `RecordError` for a record that has other charges."""
        with open_record(self._folder) as record:
            own = {family: dict(layout.columns) for family, layout in tracker.layouts().items()}
            if NORMS not in record.widths:  # an older one, which goes on without
                own.pop(NORMS, None)
            if record.widths != own:
                raise RecordError(f"{record.path} holds other charges than this model has; choose another folder")

    def write_if_due(self, tracker: Tracker) -> None:
        """Hand full blocks over, and others once in a while."""
        writer = self._writer
        if writer is None:
            return
        wait = min(max(COMMIT_SECONDS, SPARE * writer.committing), MOST_COMMIT_SECONDS)
        due = monotonic() - self._committed > wait
        if not (tracker.is_full or due):
            return
        self.hand_over(tracker)
        if due:
            writer.commit_later()
            self._committed = monotonic()

    def hand_over(self, tracker: Tracker) -> None:
        """Let the writer's thread have the rows that were measured, and write the log."""
        assert self._writer is not None
        if not self._writer.path.exists():
            raise RecordError(f"{self._writer.path} was deleted while it was written")
        tracker.write(self._writer, cut=False)
        self.log.write()

    def abandon(self) -> None:
        """Let go of the record as it is."""
        if self._writer is not None:
            with suppress(OSError, RecordError), self._writer:
                self._writer.close("stopped: its rows could not be written")

    def close(self, tracker: Tracker, status: str) -> int:
        """Write what is left; returns the rows of the record."""
        self.hand_over(tracker)
        writer = self._writer
        assert writer is not None
        rows = writer.rows
        with writer:
            writer.close(status)
        if self._feed is not None:
            self._feed.close()
        return rows
