"""A sweep in one table and comparable figures: nothing is averaged but seeds."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from made_runs import config, job
from neuralmech.compare.gather.analysis import analyze
from neuralmech.compare.gather.job import Panel
from neuralmech.compare.gather.parts import metrics_told
from neuralmech.compare.gather.summary import summary_table
from neuralmech.compare.measure.accounts import CAUSES
from neuralmech.compare.measure.curves import Curves
from neuralmech.compare.show.plots_accounts import budget_of_runs_figure, pushes
from neuralmech.compare.show.plots_sweeps import sweep_figure
from neuralmech.compare.show.sheets import summary_sheet
from neuralmech.compare.show.terminal import Redrawn, show_analysis
from neuralmech.errors import UserError

KEYS = ("optim.lr", "optim.momentum", "seed")
RUNS = [(lr, beta, seed) for lr in (0.01, 0.1) for beta in (0.0, 0.9) for seed in (0, 1, 2)]


def error(lr, beta, seed):
    return lr * (1 + 10 * beta) * (1 + 0.1 * seed)


@pytest.fixture
def comparison():
    rows = [
        {"family": "scale", "site": site, "law": "gradient_flow", "error": error(*run)} for run in RUNS for site in "ab"
    ]
    return pd.DataFrame(rows).assign(**{k: [run[i] for run in RUNS for _ in "ab"] for i, k in enumerate(KEYS)})


def test_each_panel_has_its_setting_and_means_over_seeds_alone(comparison):
    figure = sweep_figure(comparison, "optim.lr", KEYS)
    assert [axis.get_ylabel().splitlines()[0] for axis in figure.axes] == ["β = 0", "β = 0.9"]
    for axis, beta in zip(figure.axes, (0.0, 0.9), strict=True):
        line = axis.lines[0]
        np.testing.assert_allclose(line.get_xdata(), [0.01, 0.1])
        np.testing.assert_allclose(line.get_ydata(), [error(lr, beta, 1) for lr in (0.01, 0.1)])  # the mean of three


def test_a_summary_has_mean_and_spread_over_seeds():
    rows = [
        {"optim.lr": lr, "seed": seed, "family": "scale", "law": law, "kind": "driven", "suffices": True, "error": e,
         "forecast": "weight_decay", "forecast_error": 0.5, "sites": 2, "rounding": 0}
        for lr, seed, law, e in ((0.1, 0, "discrete", 1e-3), (0.1, 1, "discrete", 3e-3), (0.2, 0, "discrete", 1e-4))
    ]  # fmt: skip
    runs = pd.DataFrame({"optim.lr": [0.1, 0.1, 0.2], "seed": [0, 1, 0], "accuracy": [0.8, 0.9, 0.7]})
    runs["status"] = "complete"
    found = summary_table(pd.DataFrame(rows), runs, ("optim.lr", "seed")).set_index("optim.lr")
    assert found["failed"].tolist() == [0, 0]
    assert found.loc[0.1, ["runs", "agree", "law", "kind"]].tolist() == [2, 2, "discrete", "driven"]
    assert found.loc[0.1, "error"] == pytest.approx(2e-3)
    assert found.loc[0.1, "error_std"] == pytest.approx(np.std([1e-3, 3e-3], ddof=1))
    assert found.loc[0.1, "accuracy"] == pytest.approx(0.85)
    assert found.loc[0.2, "error"] == 1e-4
    assert np.isnan(found.loc[0.2, "error_std"])
    assert summary_table(pd.DataFrame(rows), runs, ()).empty


def test_a_summary_counts_the_jobs_that_failed():
    """Of two seeds one, and of another setting all: means are those of what is there, and nothing is silent."""
    row = {"family": "scale", "law": "discrete", "kind": "driven", "suffices": True, "error": 1e-3, "sites": 2}
    row |= {"forecast": "", "forecast_error": np.nan, "rounding": 0}
    verdict = pd.DataFrame([{"optim.lr": 0.1, "seed": 0, **row}])
    runs = pd.DataFrame({"optim.lr": [0.1, 0.1, 9, 9], "seed": [0, 1, 0, 1], "accuracy": [0.8, *3 * [np.nan]]})
    runs["status"] = ["complete", "failed", "failed", "failed"]
    found = summary_table(verdict, runs, ("optim.lr", "seed"))
    assert found[["optim.lr", "family", "runs", "failed"]].to_numpy().tolist() == [[0.1, "scale", 1, 1], [9, "", 0, 2]]
    assert found["accuracy"].iloc[0] == 0.8
    sheet = summary_sheet(found)
    assert sheet.columns == ("optim.lr", "runs", "failed", "accuracy", "scale")
    assert [[cell.text for cell in row] for row in sheet.rows] == [
        ["0.1", "1", "1", "0.8", "D discrete 1.0e-03"],
        ["9", "0", "2", "–", "–"],
    ]
    (only,) = summary_table(verdict, runs.iloc[:2], ("seed",)).to_dict("records")
    assert (only["runs"], only["failed"]) == (1, 1)


def test_budgets_of_runs_are_on_one_scale():
    zero = dict.fromkeys(CAUSES, 0.0)
    rows = [
        {**zero, "weight_decay": -3.0 * size, "discretisation": 1.0 * size, "motion": -2.0 * size, "optim.lr": lr}
        for lr, size in ((0.1, 1.0), (0.2, 100.0))
        for _ in range(2)
    ]
    budget = pd.DataFrame(rows).assign(family="scale", site="a", reason="")
    still = budget.assign(reason="moved by rounding alone", **{"optim.lr": 0.3})
    pushed = pushes(pd.concat([budget, still]), ("optim.lr",))
    assert pushed["label"].tolist() == ["η = 0.1", "η = 0.2"]  # no bar for rounding
    np.testing.assert_allclose(pushed["weight_decay down"], -0.75)
    np.testing.assert_allclose(pushed["discretisation up"], 0.25)
    np.testing.assert_allclose(pushed["net"], -0.5)
    (axis,) = budget_of_runs_figure(pushed).axes
    assert len(axis.get_yticks()) == 2
    assert axis.get_xlim()[0] < -1 < 1 < axis.get_xlim()[1]


@pytest.fixture
def sweep(tmp_path):
    for number in range(12):
        job(tmp_path / str(number), config(0.01 * (1 + number // 2), number % 2))
    return tmp_path


def test_the_terminal_has_one_row_for_each_setting(sweep):
    text = io.StringIO()
    show_analysis(analyze(sweep), Console(file=text, width=120))
    assert text.getvalue().count(" ± ") + text.getvalue().count("± ") >= 6
    assert len(text.getvalue().splitlines()) < 24


def test_figures_draw_the_runs_that_were_chosen(sweep):
    assert [panel.title for panel in analyze(sweep, runs=[3, "7"]).panels] == [
        "η = 0.02, seed = 1",
        "η = 0.04, seed = 1",
    ]
    assert {panel.title.rpartition(" ")[2] for panel in analyze(sweep).panels} == {"0"}  # one of each setting
    with pytest.raises(UserError, match=r"runs=99 is unknown.*choose one of 0, 1, 2"):
        analyze(sweep, runs=[99])
    with pytest.raises(UserError, match="leaves nothing to draw"):
        analyze(sweep, runs=[])


def test_a_terminal_is_redrawn_in_place(sweep):
    found, seen = analyze(sweep), []
    for is_terminal in (True, False):
        text = io.StringIO()
        with Redrawn(Console(file=text, width=120, force_terminal=is_terminal)) as show:
            show(found)
            once = text.getvalue()
            show(found)
        seen.append((once, text.getvalue()[len(once) :]))
    (_, again), (once, below) = seen
    assert "\x1b[1A" in again  # the cursor goes up and lines are written anew,
    assert once == below  # in a file they follow each other


def test_parts_in_another_metric_say_so():
    def panel(title, size):
        value = size * np.ones((5, 3))
        return Panel(title, {"scale": Curves(np.arange(5), np.ones(5), value, np.arange(1), {}, {})}, {})

    panels, notes = metrics_told([panel("part = 1", 1.0), panel("part = 2", 1.01), panel("part = 3", 4.0)])
    assert [one.title for one in panels] == ["part = 1", "part = 2", "part = 3, another metric"]
    assert len(notes) == 1
    assert notes[0].startswith("part = 3: scale charges are in another metric than in the part before")
