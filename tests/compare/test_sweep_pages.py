"""A sweep in one table and comparable figures: nothing is averaged but seeds."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from made_runs import config, job
from neuralmech.compare.gather.analysis import analyze
from neuralmech.compare.gather.job import Panel
from neuralmech.compare.gather.parts import metrics_told
from neuralmech.compare.gather.pushes import pushes
from neuralmech.compare.gather.summary import summary_table
from neuralmech.compare.measure.accounts import CAUSES, THROUGH_MEMORY
from neuralmech.compare.measure.curves import Curves
from neuralmech.compare.measure.verdict import moved_by
from neuralmech.compare.show.plots_accounts import budget_of_runs_figure
from neuralmech.compare.show.plots_sweeps import sweep_figure
from neuralmech.compare.show.sheets import summary_sheet
from neuralmech.compare.show.terminal import Redrawn, show_analysis
from neuralmech.compare.show.terminal_budget import by_family
from neuralmech.compare.show.verdicts import moved_in
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


@pytest.mark.parametrize(
    "status", ["cut off: killed by SIGKILL", "stopped: KeyError: missing", "interrupted at step 40"]
)
def test_a_part_of_a_run_is_in_no_mean(status):
    row = {"family": "scale", "law": "discrete", "kind": "driven", "suffices": True, "sites": 2}
    row |= {"forecast": "", "forecast_error": np.nan, "rounding": 0}
    jobs = [(0.1, 0, 1e-3), (0.1, 1, 5.0), (9, 0, 7.0)]
    verdict = pd.DataFrame([{"optim.lr": lr, "seed": seed, "error": e, **row} for lr, seed, e in jobs])
    runs = verdict[["optim.lr", "seed"]].assign(accuracy=[0.8, 0.1, 0.1], status=["complete", status, status])
    found = summary_table(verdict, runs, ("optim.lr", "seed"))
    assert found[["optim.lr", "runs", "failed"]].to_numpy().tolist() == [[0.1, 1, 1], [9, 0, 1]]
    assert found[["error", "accuracy"]].iloc[0].tolist() == [1e-3, 0.8]
    runs["status"] = ["running", status, "waiting"]  # nothing of these two is known to be lost
    found = summary_table(verdict, runs, ("optim.lr", "seed"))
    assert found[["runs", "failed"]].to_numpy().tolist() == [[1, 1]]


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


def test_what_moved_the_charges_of_a_sweep_is_said_in_a_line_for_each_family(tmp_path):
    """Of the settings of a family, how many were moved most by what, and where by rounding."""
    zero = dict.fromkeys(CAUSES, 0.0)
    of = [(0.1, "scale", 3.0, -1.0, ""), (0.2, "scale", -1.0, 4.0, ""), (0.3, "scale", 0.0, 9.0, "")]
    still = {0.2: "moved by rounding alone"}
    of += [(lr, "rescale", -2.0 * (lr < 0.3), 0.0, still.get(lr, "")) for lr in (0.1, 0.2, 0.3)]
    budget = pd.DataFrame(
        [
            {**zero, "weight_decay": decay, "discretisation": step, "motion": 1.0, "optim.lr": lr, "family": family,
             "site": "a", "reason": reason}
            for lr, family, decay, step, reason in of
        ]
    )  # fmt: skip
    summary = budget[["optim.lr", "family"]].assign(sites=2, rounding=[0, 0, 0, 1, 2, 1])
    found = replace(analyze(made_sweep(tmp_path, 2)), keys=("optim.lr",), budget=budget, summary=summary)
    assert moved_in(found) == [
        "What moved the scale charges most: discretisation, 80 to 100 %, in 2; weight decay, 75 %, in 1 of 3 settings.",
        "What moved the rescale charges most: weight decay, 100 %, in 1; rounding alone, if anything, in 1; "
        "nothing that is known in 1 of 3 settings. At 1 of 2 sites it was rounding alone.",
    ]


def test_sums_over_sites_do_not_cancel_where_one_rises_and_another_falls():
    """The terminal's row of a family has the verdict's shares."""
    zero = {**dict.fromkeys([*CAUSES, *THROUGH_MEMORY.values(), "closure", "closure_error"], 0.0), "reason": ""}
    rows = [{**zero, "rule": rule, "weight_decay": -1.0, "moved": 4.0, "motion": rule - 1} for rule in (5.0, -3.0)]
    budget = pd.DataFrame(rows).assign(family="scale", site=["a", "b"], charges=2)
    (row,) = by_family(budget).to_dict("records")
    assert (row["share_rule"], row["share_weight_decay"]) == (0.8, 0.2)
    assert moved_by(budget) == "the work of the rule 80 %, weight decay 20 %"


def made_sweep(folder, count):
    for number in range(count):
        job(folder / str(number), config(0.01 * (1 + number // 2), number % 2))
    return folder


@pytest.fixture
def sweep(tmp_path):
    return made_sweep(tmp_path, 12)


def test_the_terminal_has_one_row_for_each_setting(sweep):
    text = io.StringIO()
    show_analysis(analyze(sweep), Console(file=text, width=120))
    assert text.getvalue().count(" ± ") + text.getvalue().count("± ") >= 6
    assert "\nWhat moved the scale charges most: " in text.getvalue()
    assert len(text.getvalue().splitlines()) < 25


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
