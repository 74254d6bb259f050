"""A record that is being written is read in place, and never half before and half after a write."""

import os
import time

import pytest

from made_runs import LAYOUT, rows
from neuralmech.record import RecordError, RecordWriter
from neuralmech.record.opening import glimpse
from neuralmech.record.still import StillFile


def test_nothing_is_read_after_a_write(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before" * 100)
    with StillFile(path) as still:
        assert still.read(6) == b"before"
        assert (still.seek(-6, os.SEEK_END), still.tell()) == (594, 594)
        path.write_bytes(b"after " * 100)
        with pytest.raises(OSError, match="has written"):
            still.read(6)
        assert still.changed


def test_reading_begins_again_after_a_write_in_between(tmp_path):
    with RecordWriter(tmp_path, {"config": "{}"}, LAYOUT, 10) as writer:
        writer.append(*rows(0, 10))
        seen = []

        def read(record):
            seen.append(record.rows)
            if len(seen) == 1:
                writer.append(*rows(10, 10))
            return record.rows, float(record.charges("scale").value[0].sum())

        assert glimpse(writer.path, read) == (20, 2.0)
        assert seen == [10, 20]


def test_what_goes_wrong_by_itself_is_told(tmp_path):
    def fail(record):
        raise ZeroDivisionError

    with RecordWriter(tmp_path, {"config": "{}"}, LAYOUT, 10) as writer:
        with pytest.raises(ZeroDivisionError):
            glimpse(writer.path, fail)

        writer.append(*rows(0, 10))

        def write(record):
            time.sleep(0.01)
            writer.append_evaluation(0, 1.0, 0.5)
            return record.column("loss")[:]

        with pytest.raises(RecordError, match="without a pause"):
            glimpse(writer.path, write, patience=0.1)
    assert glimpse(writer.path, lambda record: record.status) == "complete"
