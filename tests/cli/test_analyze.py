"""Analysing by the command line: files, tables, folders that hold no run."""

import re

import h5py
import numpy as np
import pandas as pd
import pytest

from command_line import SMALL, refused

pytestmark = pytest.mark.usefixtures("found_once")


def test_train_then_analyze(command, tmp_path):
    code, out, err = command("train", *SMALL, "optim.weight_decay=0.01", "hydra.run.dir=run")
    assert (code, err) == (0, "")
    assert "30 steps recorded" in out
    assert "Next: neuralmech analyze run" in out
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"record.h5", "checkpoints", ".hydra"}
    code, out, err = command("analyze", "run", "lines=3")
    assert (code, err) == (0, "")
    assert "discrete" in out
    assert "features.0 -> features.2" in out
    table = pd.read_csv(tmp_path / "run/analysis/comparison.csv")
    assert list(table.columns) == [
        "family", "site", "law", "kind", "charges", "steps", "error", "unexplained", "max_error", "final_error",
        "q10", "median", "q90", "reason",
    ]  # fmt: skip
    assert set(table["law"]) == {
        "gradient_flow", "weight_decay", "modified_loss", "first_order_flow", "modified_flow", "stochastic",
        "noether", "discrete", "discrete_broken",
    }  # fmt: skip
    files = {p.name for p in (tmp_path / "run/analysis").iterdir()}
    tables = {
        f"{name}.{suffix}"
        for name in ("comparison", "budget", "kinetic", "oscillator")
        for suffix in ("csv", "md", "tex")
    }
    figures = {
        f"{name}.{suffix}"
        for name in ("training", "translation", "rescale", "parameters", "budget", "phase_portraits")
        for suffix in ("png", "pdf", "svg")
    }
    assert files == tables | figures | {"verdict.csv", "runs.csv", "report.html", ".made"}


@pytest.mark.usefixtures("run")
def test_bad_run_folders_are_one_line(command, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/record.h5").write_text("hello")
    (tmp_path / "run/analysis").write_text("in the way")
    for words, message in [
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "empty holds no record"),
        (["text"], "text/record.h5 is not a readable HDF5 file"),
        ([], "analyze needs a run folder"),
        (["run"], "run/analysis cannot be written"),
        (["run", "laws=[discreet]"], "laws=discreet is unknown .did you mean discrete"),
        (["run", "lines=0"], "lines=0 is too small"),
        (["run", "lines=abc"], "lines=abc must be a whole number"),
        (["run", "laws=[]"], "leaves nothing to compare"),
        (["run", "figures=maybe"], "figures=maybe must be true or false"),
        (["run", "nowhere"], "nowhere does not exist"),
        (["run", "colour=red"], "colour is no option"),
    ]:
        refused(command("analyze", *words), message)


@pytest.mark.usefixtures("run")
def test_a_newer_record_is_refused(command, tmp_path):
    with h5py.File(tmp_path / "run/record.h5", "a") as f:
        f.attrs["schema_version"] = 99
    code, _, err = command("analyze", "run")
    assert code == 2
    assert "schema version 99" in err
    assert "upgrade neuralmech" in err


@pytest.mark.usefixtures("run")
def test_a_failed_analysis_leaves_nothing_behind(command, tmp_path):
    (tmp_path / "run/analysis/rescale.png").mkdir(parents=True)
    code, _, err = command("analyze", "run")
    assert code == 2
    assert "rescale.png is in the way" in err
    assert [p.name for p in (tmp_path / "run/analysis").iterdir()] == ["rescale.png"]
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"record.h5", "checkpoints", ".hydra", "analysis"}


@pytest.mark.usefixtures("run")
def test_memory_that_is_short_is_one_line(command, tmp_path, monkeypatch):
    monkeypatch.setattr("neuralmech.compare.folder.analyze_runs", lambda *_: np.zeros(1 << 50))
    code, out, err = command("analyze", "run")
    assert (code, out) == (1, "")
    assert re.fullmatch("neuralmech: memory is short .*8.00 PiB.*; free some, or take a smaller model.*\n", err)


@pytest.mark.usefixtures("run")
def test_flags_of_analyze_are_not_runs(command, tmp_path):
    assert "figures: true" in command("analyze", "--cfg", "job")[1]
    (tmp_path / "mine").mkdir()
    code, out, _ = command("analyze", "run", "--config-dir", str(tmp_path / "mine"), "figures=false")
    assert code == 0
    assert "comparison.csv" in out


@pytest.mark.usefixtures("run")
def test_a_forecast_is_printed_and_bad_ones_are_refused(command):
    code, out, _ = command("forecast", "run", "optim.lr=0.01", "steps=50")
    assert code == 0
    assert "50 steps with η = 0.01" in out
    for words, message in [
        (["optim.lr=-1"], "optim.lr=-1 must not be negative"),
        (["steps=0"], "steps=0 must be a whole number, 1 or more"),
        (["at=999"], "at=999 is no recorded step"),
        (["optim.momentum=0.5"], "momentum"),
    ]:
        code, _, err = command("forecast", "run", *words)
        assert code == 2
        assert message in err
        assert len(err.splitlines()) == 1
    assert command("forecast")[0] == 2
