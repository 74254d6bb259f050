"""Writing from a thread: the same record, errors that reach the loop, and rows that are never dropped."""

import threading

import numpy as np
import pytest

from neuralmech.record import BackgroundWriter, RecordWriter, open_record
from neuralmech.record.schema import SIGNALS, STEP_COLUMNS, FamilyLayout

LAYOUT = {"scale": FamilyLayout(["a", "a"], [0, 1], SIGNALS, translation=False)}


def block(first, rows=4):
    steps = {n: np.zeros(rows, dtype=d) for n, d in STEP_COLUMNS.items()}
    steps["step"] = np.arange(first, first + rows)
    value = first + np.arange(2.0 * rows).reshape(rows, 2)
    return steps, {"scale": dict.fromkeys(SIGNALS, value)}


def test_every_row_arrives_in_order(tmp_path):
    with RecordWriter(tmp_path, {}, LAYOUT, 4) as plain, BackgroundWriter(plain) as writer:
        for k in range(50):
            writer.append(*block(4 * k))
        assert writer.rows == 200  # waits
    with open_record(tmp_path) as r:
        assert r.steps()["step"].tolist() == list(range(200))
        assert r.status == "complete"


def test_a_slow_disk_slows_the_loop_and_drops_nothing(tmp_path):
    gate = threading.Event()

    class Slow:
        rows = 0

        def append_later(self, rows, done):
            gate.wait()
            self.rows += len(rows()[0]["step"])

    slow, handed = Slow(), []
    with BackgroundWriter(slow) as writer:
        loop = threading.Thread(target=lambda: [(writer.append(*block(0)), handed.append(1)) for _ in range(9)])
        loop.start()
        loop.join(0.3)
        assert loop.is_alive()
        assert len(handed) <= 3  # one being written, two waiting
        gate.set()
        loop.join()
        assert writer.rows == 36


def test_an_error_of_the_thread_reaches_the_loop_at_once_and_nothing_is_written_after_it():
    class Broken:
        written = 0

        def append_later(self, rows, done):
            if self.written == 2:
                raise OSError("no space left")
            self.written += 1

        def close(self, status):
            self.status = status

    def hand_over(writer):
        with writer:
            for _ in range(20):
                writer.append(*block(0))

    broken = Broken()
    with pytest.raises(OSError, match="no space left"):
        hand_over(BackgroundWriter(broken))
    assert broken.written == 2

    writer = BackgroundWriter(broken)
    writer.append(*block(0))
    with pytest.raises(OSError, match="no space left"):
        writer.close("stopped")
    assert broken.status == "stopped"


def test_rows_that_come_later_arrive_in_order_and_may_be_none(tmp_path):
    gate = threading.Event()

    def late():
        gate.wait()
        return block(0)

    with RecordWriter(tmp_path, {}, LAYOUT, 4) as plain, BackgroundWriter(plain) as writer:
        writer.append_later(late)
        writer.append_later(lambda: None)
        writer.append(*block(4))
        assert plain.rows == 0  # nobody waited
        gate.set()
        assert writer.rows == 8
    with open_record(tmp_path) as r:
        assert r.steps()["step"].tolist() == list(range(8))


def test_rows_that_do_not_come_stop_the_loop(tmp_path):
    def lost():
        raise RuntimeError("the device is gone")

    def hand_over(writer):
        with writer:
            writer.append_later(lost)
            writer.drain()

    with RecordWriter(tmp_path, {}, LAYOUT, 4) as plain:
        with pytest.raises(RuntimeError, match="device is gone"):
            hand_over(BackgroundWriter(plain))
        assert plain.rows == 0
