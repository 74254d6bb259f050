"""The table of a sweep: what records say counts, live until no job runs."""

import shutil
from io import StringIO

import pytest
from rich.console import Console

from neuralmech.errors import UserError
from neuralmech.record import RecordError
from neuralmech.sweeps.manifest import Manifest, this_process
from neuralmech.sweeps.show import SweepOptions, show
from neuralmech.sweeps.states import GONE, states_of
from neuralmech.training.process import locked


@pytest.fixture
def sweep(tmp_path):
    manifest = Manifest(tmp_path / "sweep")
    manifest.plan({k: ["model=mlp", f"seed={k}"] for k in range(4)})
    return manifest


def shown(folder, sleep=None, **chosen):
    console = Console(file=StringIO(), force_terminal=sleep is not None, highlight=False, width=120)
    show(folder, SweepOptions(**chosen), console, sleep or pytest.fail)
    return console.file.getvalue()


def test_jobs_their_own_words_and_how_many_are_in_each_state(sweep):
    sweep.update(1, state="failed", seconds=2.0, error="[red]no")
    sweep.update(2, state="done", seconds=1234.56)
    lines = [line.split() for line in shown(sweep.folder).splitlines()]
    assert ["0", "seed=0", "waiting"] in lines
    assert ["1", "seed=1", "failed", "2.0", "[red]no"] in lines
    assert ["2", "seed=2", "done", "1,234.6"] in lines
    assert lines[-1][1:] == ["4", "jobs,", "2", "waiting,", "1", "done,", "1", "failed"]


def test_it_is_shown_again_until_no_job_runs(sweep):
    sweep.update(0, state="running", process=this_process(), folder="0")
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        sweep.update(0, state="running" if len(looks) < 3 else "done")

    text = shown(sweep.folder, sleep, interval=0.5)
    assert looks == [0.5, 0.5, 0.5]
    assert "1 running" in text
    assert "1 done" in text
    sweep.update(0, state="running")
    assert "1 running" in shown(sweep.folder, once=True)


def test_it_is_shown_while_the_command_that_hands_jobs_out_is_there(sweep):
    """Between two jobs none runs."""
    jobs = {k: ["model=mlp", f"seed={k}"] for k in range(4)}
    sweep.plan(jobs, this_process())
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        for number in jobs:
            sweep.update(number, state="done", process=None)

    assert "4 done" in shown(sweep.folder, sleep)
    assert len(looks) == 1
    sweep.update(0, state="waiting", process=f"{this_process().rpartition(':')[0]}:{2**22 + 1}")
    assert "1 waiting" in shown(sweep.folder, lambda _: pytest.fail("it waits for nobody"))


def test_a_job_whose_process_is_gone_was_killed_and_one_whose_folder_is_held_runs(sweep):
    sweep.update(0, state="running", process="elsewhere:1", folder="0")
    sweep.update(1, state="running", process=f"{this_process().rpartition(':')[0]}:{2**22 + 1}", folder="1")
    sweep.update(2, state="killed", folder="2")
    for number in range(3):
        (sweep.folder / str(number)).mkdir()
    with locked(sweep.folder / "2"):
        found = [(state.entry.state, state.entry.error) for state in states_of(sweep.folder)]
    assert found == [("running", None), ("killed", GONE), ("running", None), ("waiting", None)]


def test_records_say_what_is_done_without_a_manifest_and_against_it(made_run, tmp_path):
    for number in range(2):
        shutil.copytree(made_run, tmp_path / f"sweep/{number}")
    assert [s.entry.state for s in states_of(tmp_path / "sweep")] == ["done", "done"]
    manifest = Manifest(tmp_path / "sweep")
    manifest.plan({k: [f"seed={k}"] for k in range(2)})
    manifest.update(0, state="running", folder="0", process=f"{this_process().rpartition(':')[0]}:{2**22 + 1}")
    manifest.update(1, state="waiting", folder="1")
    found = states_of(tmp_path / "sweep")
    assert [(s.entry.state, s.rows) for s in found] == [("done", 4), ("done", 4)]


def test_what_is_no_sweep_is_one_line(made_run, tmp_path):
    with pytest.raises(RecordError, match="does not exist"):
        states_of(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="folder of one run"):
        states_of(made_run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="holds no sweep"):
        states_of(tmp_path / "empty")
    for options in ({"interval": 0}, {"interval": True}, {"once": 1}):
        with pytest.raises(UserError):
            SweepOptions(**options).check()


@pytest.fixture
def made_run(tmp_path):
    import numpy as np

    from conftest import record

    (tmp_path / "run").mkdir()
    record(tmp_path / "run", np.ones((4, 3))).close()
    return tmp_path / "run"
