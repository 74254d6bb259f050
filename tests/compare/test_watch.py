"""Watching a run: what a look shows, that looks go on from each other, how watching ends."""

import io
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import made_runs
import neuralmech
from conftest import record
from made_runs import job
from neuralmech.compare.gather.analysis import analyze
from neuralmech.compare.measure.glance import Looking
from neuralmech.compare.show.watching import Look, screen
from neuralmech.compare.watch import Watched, WatchOptions, watch
from neuralmech.errors import UserError
from neuralmech.record import RecordError, RecordWriter, open_record

pytestmark = pytest.mark.usefixtures("found_once")


def text(run, width=80, **chosen):
    console = Console(file=io.StringIO(), width=width)
    watch(run, WatchOptions(**chosen), console)
    return console.file.getvalue()


RUNS = {
    "sgd": {"model": {"name": "mlp", "width": 6, "depth": 2, "norm": "batch"}, "optim": {"lr": 0.1, "momentum": 0.9}},
    "windows": {"track": {"steps": [[3, 17], [20, 37]]}, "optim": {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.01}},
    "adam": {"optim": {"name": "adam", "lr": 0.01}, "model": {"name": "mlp", "width": 6, "depth": 2, "norm": "layer"}},
    "every": {"track": {"every": 3}, "optim": {"lr": 0.05}},
}


@pytest.mark.parametrize("name", RUNS)
def test_the_error_so_far_is_that_of_an_analysis_however_often_one_looked(finished, name):
    folder = finished(**RUNS[name])
    laws = ("discrete", "moving_metric")
    table = analyze(folder, laws=list(laws)).comparison
    wanted = table[table["reason"] == ""].set_index(["family", "site"])["error"]
    looking = Looking()
    with open_record(folder) as whole:
        rows = whole.rows
    for end in (1, 2, 7, rows // 2, rows - 1, rows):
        with open_record(folder) as part:
            part.cut(end)
            found = looking.look(part, ended=end == rows)
    errors = {(s.family, s.site): s.error for s in found.sites if not np.isnan(s.error)}
    assert errors.keys() == {key for key in wanted.index if "|Q|" not in key[1]}
    for key, error in errors.items():
        assert error == pytest.approx(wanted[key], rel=1e-6, abs=1e-12)
    assert all(s.reason for s in found.sites if np.isnan(s.error))


def test_effective_learning_rates_and_means(tmp_path):
    value = np.arange(1.0, 31.0)[:, None] * [1.0, 3.0, 5.0]
    with record(tmp_path, value, loss=np.linspace(2, 1, 30)) as made:
        a, b = Looking().look(made, ended=True).sites
    np.testing.assert_allclose(a.value, 2 * np.arange(1.0, 31.0))
    np.testing.assert_allclose(a.rate, 0.1 / a.value)
    np.testing.assert_allclose(b.rate, 0.1 / (5 * np.arange(1.0, 31.0)))


def test_a_finished_run_is_shown_once(tmp_path):
    job(tmp_path / "run", made_runs.config(0.1, 0))
    shown = text(tmp_path / "run")
    assert shown.count("complete") == 1
    assert "step 20" in shown
    assert any(line.startswith(" a ") and "█" in line and "▁" in line for line in shown.splitlines())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_a_screen_is_not_higher(finished, width):
    folder = finished(**RUNS["sgd"])
    lines = text(folder, width).splitlines()
    assert max(len(line) for line in lines) <= width
    console, seen = Console(file=io.StringIO(), width=width), Watched(folder).look()
    with console.capture() as low:
        console.print(screen(seen, console, 10, height=14))
    assert len(low.get().splitlines()) <= 14


def test_many_sites_are_a_few(finished):
    folder = finished(model={"name": "mlp", "width": 4, "depth": 5, "norm": "batch"})
    assert "scale (5 sites)" in text(folder, sites=2)


def test_a_run_that_another_process_writes_is_watched_to_its_end(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", made_runs.WRITE, str(folder), str(tmp_path), str(Path(made_runs.__file__).parent)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    console = Console(file=io.StringIO(), width=80)

    def sleep(_):
        for rows in range(10, 60, 10):
            if f"step {rows} " in console.file.getvalue().replace("\n", " "):
                (tmp_path / f"seen{rows}").touch()  # then the writer goes on

    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        watch(folder, WatchOptions(interval=0.01), console, sleep)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    shown = console.file.getvalue()
    assert [f"step {n} " in shown for n in (10, 20, 30, 40, 50)] == [True] * 5
    assert shown.count("complete") == 1
    assert shown.index("running") < shown.index("complete")


def test_ctrl_c_ends_watching_without_a_word(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    console = Console(file=io.StringIO(), width=80)

    def sleep(_):
        raise KeyboardInterrupt

    with RecordWriter(folder, {"config": "{}"}, made_runs.LAYOUT, 10) as writer:
        writer.append(*made_runs.rows(0, 10))
        watch(folder, WatchOptions(), console, sleep)
    assert "running" in console.file.getvalue()


def test_a_run_without_rows_has_nothing_to_show_or_is_waited_for(tmp_path):
    job(tmp_path / "none", made_runs.config(0.1, 0), count=0, status="not finite at step 0")
    with pytest.raises(RecordError, match=r"nothing to show .not finite at step 0"):
        watch(tmp_path / "none")
    console = Console(file=io.StringIO(), width=80)
    console.print(screen(Look("run", "no record yet: it is being set up", None), console, 4))
    assert console.file.getvalue() == "run: no record yet: it is being set up\n"


def test_a_sweep_and_wrong_numbers_are_refused(tmp_path):
    for name in ("0", "1"):
        job(tmp_path / name, made_runs.config(0.1, int(name)))
    with pytest.raises(UserError, match=r"holds 2 runs; watch one of them, such as .*0"):
        watch(tmp_path)
    for key, value in [("interval", 0), ("interval", "fast"), ("sites", 0), ("sites", True), ("once", 1)]:
        with pytest.raises(UserError, match=f"{key}={value}"):
            WatchOptions(**{key: value}).check()


class Handle:
    def __init__(self):
        self.shown = []

    def update(self, what):
        self.shown.append(what)


def test_outside_of_a_notebook_a_view_is_printed_once(tmp_path, capsys):
    job(tmp_path / "run", made_runs.config(0.1, 0))
    view = neuralmech.live(tmp_path / "run")
    printed = capsys.readouterr().out
    assert "step 20" in printed
    assert str(view) == printed.rstrip()
    assert "step 20, complete" in repr(view)
    assert len(repr(view).splitlines()) == 1
    assert view._repr_html_().startswith("<pre")


def test_in_a_notebook_a_view_updates_itself_until_the_run_ends(tmp_path, monkeypatch):
    handle, first = Handle(), []
    shell = types.SimpleNamespace(kernel=object())
    notebook = types.ModuleType("IPython")
    notebook.get_ipython = lambda: shell
    shown = types.ModuleType("IPython.display")
    shown.HTML, shown.display = str, lambda html, display_id: first.append(html) or handle
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    (tmp_path / "run").mkdir()
    with RecordWriter(tmp_path / "run", {"config": "{}"}, made_runs.LAYOUT, 10) as writer:
        writer.append(*made_runs.rows(0, 10))
        view = neuralmech.live(tmp_path / "run", interval=0.02)
        view._ipython_display_()  # the end of the cell shows no second one
        assert len(first) == 1
        writer.append(*made_runs.rows(10, 10))
    view._thread.join(20)
    assert view.is_over
    assert "step 20" in handle.shown[-1]
    assert "complete" in handle.shown[-1]


def test_an_attached_training_is_watched_by_its_last_part(tmp_path):
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(16, 4), torch.randint(3, (16,))
    with neuralmech.attach(model, optimizer, tmp_path, x) as tracking:
        for _ in range(6):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            tracking.log(loss=loss)
        shown = text(tmp_path, once=True)
        assert "running" in shown or "no rows" in " ".join(shown.split())
    shown = text(tmp_path)
    assert "step 6 " in shown.replace("\n", " ")
    assert "Sequential" in shown
