"""Workers: a job that dies takes its process along and nothing else; signals reach those in hand."""

import os
import pickle
import signal
import threading
import time

import pytest

from fates import do
from neuralmech.sweeps.deaths import Death
from neuralmech.sweeps.pool import Workers
from neuralmech.sweeps.worker import Answer, Assignment
from neuralmech.training.process import Interrupted


@pytest.fixture
def pool():
    made = Workers(pickle.dumps(do), 2, lambda place: {"PLACE": str(place)})
    yield made
    made.close()


def over(pool, *words):
    jobs = [Assignment(number, (word,)) for number, word in enumerate(words)]
    return {ended.job.number: ended for ended in pool.carry_out(jobs) if ended}


def test_a_job_that_dies_takes_nothing_else_along(pool):
    found = over(pool, "done", "raise", "kill", "done", "segfault", "exit", "done", "done")
    answers = {number: ended.answer for number, ended in found.items()}
    for number in (0, 3, 6, 7):
        assert answers[number].error is None
        assert found[number].out == f"job {number}: done\n"
        assert found[number].err == ""
    assert answers[1].error.startswith("KeyError: missing at ")
    assert answers[1].error.endswith(f"fates.py:{do.__code__.co_firstlineno + 5}")
    assert found[1].err == ""
    assert answers[1].trace.startswith("Traceback (most recent call last)")
    assert answers[1].trace.endswith("KeyError: 'missing'\n")
    assert answers[2] == Death("killed", "killed by SIGKILL, by somebody or because memory was short")
    assert answers[4].state == "failed"
    assert answers[4].cause.startswith("segmentation fault (SIGSEGV) at ")
    assert f"fates.py:{do.__code__.co_firstlineno + 9}" in answers[4].cause
    assert "Fatal" not in found[4].err
    assert answers[5] == Death("failed", "its process ended with exit code 3")
    assert {answers[n].value[1] for n in (0, 3, 6, 7)} <= {"0", "1"}


def test_workers_outlive_jobs_and_batches_and_go_with_the_pool(pool):
    pids = {ended.answer.value[0] for batch in range(2) for ended in over(pool, *4 * ["done"]).values()}
    assert len(pids) <= 2
    pool.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_signal_stops_the_jobs_in_hand_and_no_more_begin(pool):
    jobs, found = [Assignment(number, ("wait",)) for number in range(4)], []
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Interrupted) as caught:
        found += [ended for ended in pool.carry_out(jobs) if ended]
    assert caught.value.signal == signal.SIGINT
    assert pool.running == []


def test_a_signal_to_one_worker_stops_its_job_alone(pool):
    found, sent = {}, False
    for ended in pool.carry_out([Assignment(0, ("wait",)), Assignment(1, ("done",)), Assignment(2, ("done",))]):
        if ended:
            found[ended.job.number] = ended.answer
        elif len(found) == 2 and not sent:
            sent = True
            time.sleep(0.2)
            next(w for w in pool._workers.values() if w.job).send(signal.SIGTERM)
    assert found[0] == Answer(stopped=signal.SIGTERM)
    assert found[1].error is found[2].error is None
