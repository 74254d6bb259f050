"""Tables in every format: a law that does not hold is a dash with its reason; the best law is in bold."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from neuralmech.compare.gather.analysis import Analysis, seed_table
from neuralmech.compare.measure.accounts import CAUSES, THROUGH_MEMORY, budget_table
from neuralmech.compare.measure.batches import BatchPredictions
from neuralmech.compare.measure.inputs import ChargeClass
from neuralmech.compare.measure.verdict import family_verdict
from neuralmech.compare.show.cells import law_cells
from neuralmech.compare.show.formats import latex, markdown
from neuralmech.compare.show.report import report
from neuralmech.compare.show.sheets import budget_sheet, comparison_sheets
from neuralmech.compare.show.terminal import show_analysis
from neuralmech.laws.system import Circumstances
from neuralmech.record import open_record

pytestmark = pytest.mark.usefixtures("found_once")

WHY = "Adam has no <b>momentum</b> form & 50 % | more"
NAN = float("nan")
AB = "a_1 -> b"


def row(site, law, error, reason="", **more):
    measures = dict.fromkeys(("unexplained", "max_error", "final_error", "q10", "median", "q90"), error)
    plain = {"family": "scale", "site": site, "law": law, "kind": "driven", "charges": 2, "steps": 9, "error": error}
    return {**plain, **measures, "reason": reason, **more}


@pytest.fixture
def table():
    rows = [
        row(AB, "gradient_flow", 0.5), row(AB, "modified_flow", NAN, WHY), row(AB, "discrete", 1e-7),
        row("c", "gradient_flow", 1e-9), row("c", "modified_flow", NAN, WHY), row("c", "discrete", 2e-7),
    ]  # fmt: skip
    return pd.DataFrame(rows)


def no_budget(table, reason):
    """Rows of an account that cannot be drawn up."""
    rows = table[["family", "site", "charges", "steps"]].drop_duplicates(ignore_index=True)
    names = ["motion", *CAUSES, "closure", *THROUGH_MEMORY.values(), "moved", "closure_error"]
    shares = [f"share_{name}" for name in (*CAUSES, "closure")]
    return rows.assign(**dict.fromkeys([*names, *shares], NAN), reason=reason)


def verdict(table):
    of = [ChargeClass(slice(None), Circumstances("scale", translation=False, signals=()))]
    return pd.DataFrame([{"family": "scale", **family_verdict(table, no_budget(table, WHY), of, decays=False)}])


def analysis(table, folder):
    with_keys = {"seeds": seed_table(table, ()), "runs": pd.DataFrame([{"job": "x", "steps": 9, "loss": 0.1,
                 "accuracy": 0.9, "status": "complete", "reason": ""}])}  # fmt: skip
    budget = no_budget(table, WHY)
    none = {
        "equilibrium": pd.DataFrame(),
        "kinetic": pd.DataFrame(),
        "oscillator": pd.DataFrame(),
        "rotations": pd.DataFrame(),
        "noise_equilibrium": pd.DataFrame(),
        "loss": pd.DataFrame(),
        "batches": BatchPredictions(pd.DataFrame(), ()),
    }
    return Analysis(
        folder=folder, comparison=table, budget=budget, keys=(), verdict=verdict(table), **none, **with_keys
    )


def test_the_law_of_the_verdict_is_in_bold_run_by_run(table):
    swept = pd.concat([table.assign(lr=0.1), table.assign(lr=0.2)])
    verdict = pd.DataFrame({"lr": [0.1, 0.2], "family": "scale", "law": ["discrete", ""]})
    cells, _ = law_cells(swept, ("lr",), verdict)
    assert [c.bold for c in cells["discrete"]] == [True, True, False, False]
    assert not any(c.bold for c in cells["gradient_flow"])


def test_a_law_that_does_not_hold_is_a_dash_with_a_footnote(table, tmp_path, capsys):
    cells, notes = law_cells(table, (), verdict(table))
    assert notes.texts == (WHY,)
    assert [(c.text, c.note) for c in cells["modified_flow"]] == [("–", 1)] * 2
    sheets = comparison_sheets(table, (), verdict(table))
    text = markdown(sheets, "title", ["a | b"])
    assert "| –<sup>1</sup> |" in text
    assert "1. Adam has no &lt;b>momentum&lt;/b> form" in text
    assert "**1.0e-07**" in text
    assert r"- a \| b" in text
    source = latex(sheets, "100 %_")
    assert r"--$^{1}$" in source
    assert r"\footnotesize $^{1}$ Adam has no \textless{}b\textgreater{}momentum" in source
    assert r"\& 50 \% \textbar{} more" in source
    assert r"$\mathbf{1.0\times10^{-7}}$" in source
    assert r"a\_1 $\to$ b" in source
    page = report(analysis(table, tmp_path), sheets)
    assert "–<sup>1</sup>" in page
    assert "<li>Adam has no &lt;b&gt;momentum&lt;/b&gt; form &amp; 50 % | more</li>" in page
    assert "<strong>1.0e-07</strong>" in page
    show_analysis(analysis(table, tmp_path))
    shown = capsys.readouterr().out
    assert "–¹" in shown
    assert "¹ Adam has no <b>momentum</b> form" in shown


def test_latex_tables_are_balanced(table):
    source = latex(comparison_sheets(table, (), verdict(table)), "x")
    assert source.count(r"\begin{longtable}") == source.count(r"\end{longtable}") == 2
    plain = source.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    for rule in ("toprule", "midrule", "bottomrule"):
        assert source.count(rf"\{rule}") == 2
    columns = {line.count(" & ") for line in source.splitlines() if line.endswith(r"\\") and " & " in line}
    assert columns == {5}  # family, site, charges and three laws


def test_a_budget_without_an_exact_law_says_why(table, run):
    none = no_budget(table, WHY)
    sheet = budget_sheet(none, ())
    assert sheet.footnotes == (WHY,)
    assert [(c.text, c.note) for c in sheet.rows[0]][4:] == [("–", 1)] * 7
    with open_record(run()) as record:
        assert list(none.columns) == list(budget_table(record, record.families[0]).columns)


def test_seeds_are_told_from_other_keys(table):
    """Mean and standard deviation over seeds, for each learning rate; one seed alone has no spread."""
    swept = pd.concat(
        [table.assign(lr=lr, seed=s, error=table["error"] * (1 + s)) for lr, s in ((0.1, 0), (0.1, 1), (0.2, 0))]
    )
    seeds = seed_table(swept, ("lr", "seed")).set_index(["lr", "site", "law"])
    assert set(seeds.index.get_level_values("lr")) == {0.1}
    found = seeds.loc[(0.1, AB, "gradient_flow")]
    assert found["seeds"] == 2
    assert found["mean"] == pytest.approx(0.75)
    assert found["std"] == pytest.approx(0.5 / math.sqrt(2))
    assert seed_table(swept.drop(columns="seed"), ("lr",)).empty


def test_the_page_reloads_while_a_run_is_written(table, tmp_path):
    done = analysis(table, tmp_path)
    sheets = comparison_sheets(table, (), verdict(table))
    assert 'http-equiv="refresh"' not in report(done, sheets)
    page = report(replace(done, is_running=True), sheets, refresh=2.5)
    assert '<meta http-equiv="refresh" content="3">' in page
    assert "Still being written" in page
