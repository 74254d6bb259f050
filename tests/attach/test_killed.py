"""A process that ends in the middle of its loop: what is there to be read."""

import signal
import time

import pytest

from interpreters import Forked
from neuralmech.record import open_record
from own_loops import steps_of

LOOP = """
import sys, signal, time
from own_loops import *
{before}
model = net()
optimizer = sgd(model)
tracking = neuralmech.attach(model, optimizer, {folder!r}, data()[0])
for k, (x, y) in enumerate(batches(100_000)):
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    print(k, flush=True)
    time.sleep(0.01)
    {within}
"""
LOST_SECONDS = 5.0  # one between commits, and what a busy machine makes of it


def run(folder, before="", within=""):
    return Forked(LOOP.format(folder=str(folder), before=before, within=within))


def watched(process, seconds):
    """(time, step) of what it says for some seconds after its first step."""
    seen, begin = [], None
    for line in process.stdout:
        if line.strip().isdigit():
            seen.append((time.monotonic(), int(line)))
            begin = begin or seen[0][0]
            if seen[-1][0] > begin + seconds:
                break
    return seen


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_of_a_process_that_is_killed_all_but_the_last_seconds_are_there(tmp_path, by):
    process = run(tmp_path)
    seen = watched(process, LOST_SECONDS + 2)
    at = time.monotonic()
    process.send_signal(by)
    process.communicate(timeout=60)
    assert process.returncode == -by
    steps = steps_of(tmp_path)["step"].tolist()
    assert steps == list(range(len(steps)))
    assert len(steps) > max(k for when, k in seen if when < at - LOST_SECONDS)


@pytest.mark.parametrize(
    ("before", "within", "code", "status"),
    [
        ("", "if k == 30: sys.exit(3)", 3, "complete"),
        ("", "if k == 30: raise ZeroDivisionError", 1, "stopped: ZeroDivisionError"),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))", "if k == 30: signal.raise_signal(15)", 4, "complete"),
    ],
)
def test_where_python_itself_ends_every_row_is_there(tmp_path, before, within, code, status):
    process = run(tmp_path, before, within)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "31 steps recorded" in said
    with open_record(tmp_path) as record:
        assert (record.rows, record.status) == (31, status)
