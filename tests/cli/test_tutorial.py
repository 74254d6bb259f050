"""The tutorial is carried out cell by cell, and what it concludes is what comes out."""

import json
from pathlib import Path

import pytest

import neuralmech

NOTEBOOK = Path(neuralmech.__file__).parents[1] / "docs" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_it_is_kept_without_outputs(cells):
    assert [c["outputs"] for c in cells if c["cell_type"] == "code" and (c["outputs"] or c["execution_count"])] == []


def test_its_cells_lead_to_its_conclusion(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["found"].sites.keys() == {"translation", "scale", "rescale"}
    assert (names["found"].uncovered, names["found"].barriers) == ({}, ())
    shares = names["tables"].budget.set_index("family")
    assert shares["share_symmetry_breaking"].abs().max() < 1e-3
    assert shares.loc["translation", "share_discretisation"].max() == 0
    assert shares.loc["rescale", "share_discretisation"].abs().min() > 0.1
    assert names["worst"].loc["gradient_flow"].min() > 0.5
    said = {"translation": "weight_decay", "scale": "modified_flow", "rescale": "modified_flow"}
    assert names["enough"].to_dict() == said
