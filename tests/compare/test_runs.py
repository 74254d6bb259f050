"""Sweeps with jobs that failed or have not begun; runs that are still being written."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import made_runs
import neuralmech
from made_runs import config, job
from neuralmech.compare.folder import analyze_folder, follow
from neuralmech.compare.gather.analysis import compare_runs
from neuralmech.compare.gather.kept import KeptResults
from neuralmech.compare.gather.options import Options
from neuralmech.compare.gather.runs import CUT_OFF, GONE, PATIENCE_SECONDS, find_runs
from neuralmech.errors import UserError
from neuralmech.record import FAILURE_FILE, RecordError

pytestmark = pytest.mark.usefixtures("found_once")


@pytest.fixture
def sweep(tmp_path):
    """Two seeds at one learning rate, and every way to fail at another."""
    job(tmp_path / "0", config(0.1, 0))
    job(tmp_path / "1", config(0.1, 1), status="not finite at step 20")
    job(tmp_path / "2", config(1.0, 0), count=0, status="not finite at step 0")
    for name in ("3", "4"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra/config.yaml").write_text(config(-1, int(name)).replace("}", "}\nextra: 5", 1))
    (tmp_path / "3" / FAILURE_FILE).write_text("optim.lr=-1 must be positive\n")
    job(tmp_path / "5", config(0.1, 2), status="running")  # and nobody writes it
    return tmp_path


def test_means_are_over_whole_runs(sweep):
    job(sweep / "6", config(0.1, 3))
    found = compare_runs(find_runs(sweep), Options())
    assert set(found.comparison["seed"]) == {0, 2, 3}
    assert set(found.seeds["seeds"]) == {2}
    assert (found.seeds["std"].dropna() < 1e-15).all()  # the two records are the same
    assert set(found.summary.loc[found.summary["optim.lr"] == 0.1, "runs"]) == {2}


def test_what_ended_a_process_is_said_where_it_was_noted_and_looked_for_again(sweep):
    """The note may come after an analysis has seen that the process is gone."""
    kept = KeptResults.of(sweep, Options())
    found = find_runs(sweep, kept=kept)
    kept.tidy(found.jobs)
    assert kept.job(sweep / "5").status == CUT_OFF + GONE
    (sweep / "5" / FAILURE_FILE).write_text("killed by SIGKILL\n")
    found = compare_runs(find_runs(sweep, kept=kept), Options())
    assert found.runs.set_index("job").loc["5", "status"] == "cut off: killed by SIGKILL"
    assert "5: cut off: killed by SIGKILL; the first" in "\n".join(found.notes)


def test_every_job_is_named_with_its_keys_status_and_reason(sweep):
    found = compare_runs(find_runs(sweep), Options())
    runs = found.runs.set_index("job")
    assert found.keys == ("optim.lr", "seed")  # `extra` is no key of a run that was analysed
    assert runs["optim.lr"].tolist() == [0.1, 0.1, 1.0, -1, -1, 0.1]
    assert runs["status"].tolist() == ["complete", "failed", "failed", "failed", "waiting", CUT_OFF + GONE]
    assert runs.loc["1", "reason"] == "not finite at step 20"
    assert runs.loc["2", "reason"] == "not finite at step 0"
    assert runs.loc["3", "reason"] == "optim.lr=-1 must be positive"
    assert set(found.comparison["seed"]) == set(found.budget["seed"]) == {0, 2}
    assert len(found.panels) == 2
    assert found.seeds.empty  # a part of a run is in no mean
    assert "job 1 failed: not finite at step 20" in found.notes
    assert "job 3 failed: optim.lr=-1 must be positive" in found.notes
    assert any(note.startswith("job 4 has nothing to show") for note in found.notes)
    assert found.is_running  # job 4 was made a moment ago


def test_a_run_that_diverged_is_analysed_by_itself(sweep):
    (row,) = compare_runs(find_runs(sweep / "1"), Options()).runs.to_dict("records")
    assert (row["status"], row["steps"], row["reason"]) == ("not finite at step 20", 20, "")
    (job,) = find_runs(sweep / "1", live=True).readable
    assert job.status == "not finite at step 20"


def test_a_job_that_diverged_is_told_apart_in_every_document(sweep):
    analyze_folder(sweep, Options(figures=False))
    for name in ("runs.csv", "comparison.md", "comparison.tex", "report.html"):
        assert "not finite at step 20" in (sweep / "analysis" / name).read_text()
    assert set(pd.read_csv(sweep / "analysis/comparison.csv")["seed"]) == {0, 2}


@pytest.mark.parametrize(
    "dataset", ["charges/scale/value", "charges/scale/residual", "steps/lr", "evaluation/committed"]
)
def test_a_damaged_job_of_a_sweep_is_named_and_the_others_are_analysed(sweep, dataset, flip):
    flip(sweep / "5/record.h5", dataset)
    found = compare_runs(find_runs(sweep), Options())
    runs = found.runs.set_index("job")
    assert runs.loc["5", "status"] == "failed"
    assert "record.h5 is damaged" in runs.loc["5", "reason"]
    assert any(note.startswith("job 5 failed: ") for note in found.notes)
    assert set(found.comparison["seed"]) == {0}
    flip(sweep / "0/record.h5", dataset)
    with pytest.raises(RecordError, match="is damaged"):
        compare_runs(find_runs(sweep), Options())


def test_nothing_behind_a_link_is_shown(sweep, tmp_path_factory):
    secret = tmp_path_factory.mktemp("home") / "secret"
    secret.write_text("password: 1234\n")
    for path in (sweep / "3" / FAILURE_FILE, sweep / "4/.hydra/config.yaml"):
        path.unlink()
        path.symlink_to(secret)
    analyze_folder(sweep, Options(figures=False))
    made = [path for path in (sweep / "analysis").rglob("*") if path.is_file()]
    assert made
    assert not any(b"1234" in path.read_bytes() for path in made)
    assert "its config.yaml cannot be read: it is a link" in (sweep / "analysis/runs.csv").read_text()


def test_a_job_that_never_began_is_given_up(sweep, monkeypatch):
    monkeypatch.setattr("time.time", lambda now=time.time: now() + PATIENCE_SECONDS)
    found = find_runs(sweep)
    assert not found.is_running
    assert "killed, or crashed" in found.jobs[4].reason


def test_what_an_analysis_before_made_and_nobody_else_did_is_removed(tmp_path):
    job(tmp_path / "run", "optim: {name: sgd, lr: 0.1}\n")
    first = analyze_folder(tmp_path / "run", Options(figures=True))
    folder, outside = tmp_path / "run/analysis", tmp_path / "precious.csv"
    (folder / "mine.png").write_text("a note of my own")
    outside.write_text("")
    with (folder / ".made").open("a") as names:  # a list that somebody changed
        names.write(f"../../{outside.name}\n../record.h5\n{outside}\n")
        names.write("older.png\nolder.csv\n")  # as if the analysis before had had more charges
    for name in ("older.png", "older.csv"):
        (folder / name).touch()
    everything = {path.name for path in first.files}
    figures = {name for name in everything if name.endswith((".png", ".pdf", ".svg"))}
    assert figures
    second = analyze_folder(tmp_path / "run", Options(figures=False))
    assert {path.name for path in second.files} == everything - figures
    assert not any(note.startswith("figures=false") for note in first.notes)
    assert any(note.startswith("figures=false: report.html has no figures") for note in second.notes)
    there = {path.name for path in folder.iterdir()}
    assert there == {*everything, "older.png", "mine.png", ".made"}  # figures that were not asked for are left
    analyze_folder(tmp_path / "run", Options(figures=True))
    assert {path.name for path in folder.iterdir()} == {*everything, "mine.png", ".made"}
    assert outside.exists()
    assert (tmp_path / "run/record.h5").exists()


def test_a_run_is_followed_to_its_end(tmp_path):
    """From before its first committed row: the tables grow, and the last ones are those of the whole run."""
    folder = tmp_path / "run"
    folder.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", made_runs.WRITE, str(folder), str(tmp_path), str(Path(made_runs.__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        shown = []
        page = folder / "analysis/report.html"

        def show(found):
            (tmp_path / f"seen{found.runs['steps'].iloc[0]}").touch()  # then the writer goes on
            shown.append(
                (int(found.runs["steps"].iloc[0]), found.is_running, 'http-equiv="refresh"' in page.read_text())
            )

        last = follow(folder, Options(live=True, figures=False, every=0.1), show)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    steps = [n for n, *_ in shown]
    assert list(dict.fromkeys(steps)) == [10, 20, 30, 40, 50]
    assert shown[0][1:] == (True, True)
    assert shown[-1] == (50, False, False)
    whole = compare_runs(find_runs(folder), Options())
    pd.testing.assert_frame_equal(last.comparison, whole.comparison)


def test_following_a_run_that_left_nothing_ends(tmp_path):
    job(tmp_path, config(0.1, 0), count=0, status="not finite at step 0")
    with pytest.raises(RecordError, match="holds no rows"):
        follow(tmp_path, Options(live=True, every=0.01), print)


def test_a_notebook_gets_tables_and_no_files(sweep):
    found = neuralmech.analyze(sweep, laws=["gradient_flow"])
    assert set(found.comparison["law"]) == {"gradient_flow"}
    assert len(found.budget) == 2
    assert found.seeds.empty  # of two seeds one was cut off
    assert not (sweep / "analysis").exists()
    with pytest.raises(UserError, match="laws=nope is unknown"):
        neuralmech.analyze(sweep, laws=["nope"])
    with pytest.raises(UserError, match="colour is no option"):
        neuralmech.analyze(sweep, colour="red")
    with neuralmech.load(sweep / "0") as record:
        assert record.rows == 20


def test_a_job_is_shown_whatever_its_folder_holds(sweep):
    """What Hydra composed may be anybody's, and so may the reason: neither hangs, fails, nor steers the terminal."""
    levels = (f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}\n" for i in range(1, 9))
    kinds = {
        "bytes": lambda p: p.write_bytes(b"\xff\xfe\x00bad"),
        "deep": lambda p: p.write_text("[" * 5000),
        "recursive": lambda p: p.write_text("a: &a\n  b: *a\n"),
        "aliases": lambda p: p.write_text("a0: &a0 {x: 1}\n" + "".join(levels)),
        "long": lambda p: p.write_text("a: 1\n" * 100_000),
        "pipe": lambda p: os.mkfifo(p),
    }
    for name, make in kinds.items():
        (sweep / name / ".hydra").mkdir(parents=True)
        make(sweep / name / ".hydra/config.yaml")
        (sweep / name / FAILURE_FILE).write_text("\x1b[2Jit failed\n")
    table = analyze_folder(sweep, Options(figures=False)).runs.set_index("job")
    for name in kinds:
        assert table.loc[name, "status"] == "failed"
        assert re.fullmatch(r"\?\[2Jit failed; its config.yaml cannot be read: .+", table.loc[name, "reason"])
    documents = [p for p in (sweep / "analysis").iterdir() if p.suffix in (".csv", ".md", ".tex", ".html")]
    assert len(documents) > 5
    assert not [p for p in documents if "\x1b" in p.read_text()]


def test_swept_values_and_names_of_jobs_do_not_steer_the_terminal(tmp_path):
    for name in ("0", "1\x1b[2J"):
        job(tmp_path / name, f'optim: {{lr: 0.1}}\nmodel: {{name: "\\e[2J{name[0]}"}}\ntrack: {{every: "\\e[2J"}}\n')
    found = compare_runs(find_runs(tmp_path), Options())
    assert list(found.runs["job"]) == ["0", "1?[2J"]
    assert list(found.runs["model.name"]) == ["?[2J0", "?[2J1"]
    assert not [note for note in found.notes if "\x1b" in note]


@pytest.mark.parametrize("value", ["1" + "0" * 400, "-0x1" + "0" * 5000])
def test_an_integer_that_arithmetic_cannot_take_is_one_line(tmp_path, value):
    job(tmp_path / "0", f"track: {{every: {value}}}\n")
    with pytest.raises(RecordError, match=r"its config is no plain YAML \(an integer is too large\)"):
        compare_runs(find_runs(tmp_path / "0"), Options())
