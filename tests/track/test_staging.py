"""What was handed over stays as it was, whatever becomes of the buffers."""

import numpy as np
import pytest
import torch

from neuralmech.track.block import NOTHING, RowBuffer, Staging


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_do_not_change_with_the_buffers():
    staging = Staging(torch.device("cuda"))
    buffers = [torch.zeros(256, 4, 1000, dtype=torch.float64, device="cuda"), torch.zeros(256, device="cuda")]
    taken = []
    for k in range(6):
        staging.release()
        for buffer in buffers:
            buffer.fill_(k)
        taken.append(staging.copies([buffer[: 256 - k] for buffer in buffers]))
    for k, (copies, wait) in enumerate(taken):
        wait()
        assert [len(copy) for copy in copies] == [256 - k] * 2
        assert all((copy == k).all() and copy.device.type == "cpu" for copy in copies)


class Later:
    """A record that asks for rows when it likes."""

    def __init__(self):
        self.waiting = []

    def append_later(self, rows, done):
        self.waiting.append((rows, done))


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_rows_do_not_change_while_the_next_ones_are_measured(behind):
    """Nor is there more room than for the rows that wait, those being written and those being measured."""
    block, record, rooms = (
        RowBuffer(4, NOTHING._replace(ring=(4, 3)), torch.device("cpu")),
        Later(),
        set(),
    )
    for k in range(12):
        for _ in range(4 - k % 2):
            for part in block.slot():
                part.fill_(k)
            block.add({"step": 0})
        rooms.add(id(block.room))
        block.write(record, lambda measured: ({}, {"ring": {"": measured.ring}}), cut=True)
        if k >= behind:
            ready, done = record.waiting.pop(0)
            steps, charges = ready()
            rows = charges["ring"][""]
            for part in block.slot():
                part.fill_(-1)
            assert np.array_equal(rows, np.full((4 - (k - behind) % 2, 4, 3), k - behind))
            assert np.array_equal(steps["loss"], rows[:, 0, 0])
            done()
    assert len(rooms) == behind + 2


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_rows_are_cut_at_the_first_number_that_is_not_finite(bad):
    """But not at numbers whose sum is infinite only."""
    block, record = RowBuffer(6, NOTHING._replace(ring=(2, 3)), torch.device("cpu")), Later()
    for k in range(6):
        block.slot().ring.fill_(1.7e308)
        if k == 4:
            ring = block.room.slot(4).ring
            ring[1, 2], ring[0, 0] = bad, -bad
        block.add({"step": 10 + k})
    block.write(record, lambda measured: ({}, {"ring": {"": measured.ring}}), cut=True)
    ready, _ = record.waiting.pop()
    assert len(ready()[0]["loss"]) == 4
    assert block.broken_at == 14
