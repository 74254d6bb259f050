"""Records are read in processes side by side: in order, whatever becomes of one, and none is left behind."""

import os
import signal
import threading
from contextlib import closing

import pytest

from fates import analysed
from neuralmech.compare.gather.options import options
from neuralmech.compare.gather.processes import Gone, carry_out, count
from neuralmech.errors import UserError


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_results_come_in_order_from_others_with_a_thread_each():
    found = list(carry_out(analysed, [*range(7), "print"], 2))
    assert [value for value, *_ in found] == [0, 1, 4, 9, 16, 25, 36, "print"]
    assert {threads for *_, threads in found} == {"1"}
    pids = {pid for _, pid, _ in found}
    assert len(pids) <= 2
    assert os.getpid() not in pids
    assert not any(map(is_there, pids))


def test_a_process_that_is_killed_takes_what_it_has_in_hand_along():
    found = list(carry_out(analysed, [1, "kill", 2, 3, "kill", 4], 2))
    assert [one.cause if isinstance(one, Gone) else one[0] for one in found] == [
        1,
        (gone := "the process that analysed it was ended by SIGKILL; the same command analyses it again"),
        4,
        9,
        gone,
        16,
    ]


def test_an_error_is_raised_with_its_traceback():
    with pytest.raises(KeyError, match="missing") as caught:
        list(carry_out(analysed, [1, "raise", *range(20)], 2))
    assert "in analysed" in caught.value.__notes__[0]


def test_whoever_asks_for_no_more_ends_the_processes():
    with closing(carry_out(analysed, [1, "wait", "wait"], 2)) as results:
        _, pid, _ = next(results)
        assert is_there(pid)
    assert not is_there(pid)


def test_a_signal_ends_the_processes():
    with closing(carry_out(analysed, [1, "wait", "wait"], 2)) as results:
        _, pid, _ = next(results)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(results)
    assert not is_there(pid)


def test_small_sweeps_need_no_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("neuralmech.compare.gather.processes.cores", lambda: 8)
    for number, size in enumerate((1, 1, 40 << 20)):
        (tmp_path / str(number)).mkdir()
        with (tmp_path / str(number) / "record.h5").open("wb") as file:
            file.truncate(size)
    folders = [tmp_path / str(number) for number in range(3)]
    assert count(None, folders[:2]) == 1
    assert count(None, folders) == 2
    assert count(3, folders[:2]) == 2
    assert count(None, []) == count(4, []) == 0


@pytest.mark.parametrize(("jobs", "said"), [(0, "jobs=0 is too small"), (True, "whole number"), (1.5, "whole number")])
def test_a_number_of_processes_that_is_none_is_a_line(jobs, said):
    with pytest.raises(UserError, match=said):
        options({"jobs": jobs})
