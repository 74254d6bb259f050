"""Tables on terminals of other people: narrow ones, and some that know few letters."""

import io

import pytest
from rich.console import Console

from conftest import record
from neuralmech.compare.gather.analysis import analyze
from neuralmech.compare.show.cells import law_cells
from neuralmech.compare.show.terminal import show_analysis


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    import numpy as np

    folder = tmp_path_factory.mktemp("shown")
    record(folder, np.exp(-0.01 * np.arange(20))[:, None] ** [[1, 1, 0]]).close()
    return analyze(folder)


def shown(analysis, width, encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
    show_analysis(analysis, Console(file=file, width=width))
    file.flush()
    return raw.getvalue().decode(encoding)


def words_of_cells(analysis, width):
    """What the tables' rows of a site hold, in order, however many tables there are."""
    rows = [line.split() for line in shown(analysis, width).splitlines() if line.startswith(" a ")]
    return [cell for row in rows for cell in row[2:]]


@pytest.mark.parametrize("width", [74, 60, 40, 20])
def test_no_column_vanishes_from_a_narrow_table(analysis, width):
    wide = words_of_cells(analysis, 200)
    count = analysis.comparison.dropna(subset=["error"])["law"].nunique()
    assert len(wide) >= count >= 7
    assert words_of_cells(analysis, width)[:count] == wide[:count]
    assert "…" not in shown(analysis, width)


def test_a_footnote_is_no_question_mark(analysis):
    assert "–¹" in shown(analysis, 120)
    text = shown(analysis, 120, "ascii")
    assert "\n(1) " in text
    assert "?(1)" in text or "-(1)" in text


def test_footnotes_of_the_laws_are_numbered_without_gaps_and_each_is_told(run):
    """Laws that answer nowhere have no column, and their reasons no number."""
    folder = run(model={"name": "mlp", "width": 6, "norm": "batch"}, optim={"lr": 0.1, "momentum": 0.9})
    file = io.StringIO()
    found = analyze(folder)
    show_analysis(found, Console(file=file, width=200))
    table = file.getvalue().partition("in bold:")[2].partition("What moved")[0]
    told = [line[0] for line in table.splitlines() if line[:1] in set("¹²³⁴⁵⁶⁷⁸⁹")]
    marks = {c for line in table.splitlines() if line[:1] not in told for c in line if c in "¹²³⁴⁵⁶⁷⁸⁹"}
    assert told == list("¹²³⁴⁵⁶⁷⁸⁹")[: len(told)]
    assert marks == set(told) != set()
    assert len(told) < len(law_cells(found.comparison, (), found.verdict)[1].texts)  # others are left out
