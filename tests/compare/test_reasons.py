"""Where theory says nothing, the first reason is the one that no option but the optimizer can remove."""

import io

import numpy as np
import pytest
from rich.console import Console

from conftest import record
from neuralmech.compare.folder import analyze_folder
from neuralmech.compare.gather.options import Options
from neuralmech.compare.measure.accounts import budget_table
from neuralmech.compare.show.terminal import show_analysis
from neuralmech.laws import LAWS
from neuralmech.laws.system import Circumstances

ADAM = "moves each parameter at a rate of its own"


OF_SGD = [law for law in LAWS.values() if "sgd" in law.optimizers]


@pytest.mark.parametrize("law", OF_SGD, ids=lambda law: law.name)
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("family", ["scale", "translation"])
def test_the_optimizer_comes_first(law, optimizer, family):
    """Whatever else is in the way: momentum, Nesterov, a signal that is not in the record, the family."""
    c = Circumstances(
        family, translation=family == "translation", signals=(), optimizer=optimizer, momentum=True, nesterov=True
    )
    assert law.reason(c).startswith(f"{optimizer} {ADAM}")


def test_every_table_of_an_adam_run_says_so(run):
    folder = run(
        model={"name": "mlp", "width": 6, "norm": "batch"}, optim={"name": "adam", "lr": 1e-3, "weight_decay": 1e-3}
    )
    found = analyze_folder(folder, Options(figures=False))
    plain = found.comparison[~found.comparison["family"].str.endswith("_metric")]
    assert len(plain)
    assert plain["reason"].str.startswith(f"adam {ADAM}").all()
    assert found.comparison.set_index("law").loc["moving_metric", "error"].max() < 1e-4
    assert (found.budget["closure_error"] < 1e-3).all()
    text = io.StringIO()
    show_analysis(found, Console(file=text, width=120))
    labels = ", ".join(LAWS[name].label for name in dict.fromkeys(plain["law"]))
    assert f"– {labels}: adam {ADAM}" in text.getvalue()  # laws that answer nowhere are named, with their reason
    assert text.getvalue().count(f"No law answers: adam {ADAM}") == plain["family"].nunique()


def test_charges_that_did_not_move_say_so(tmp_path):
    value = np.ones((20, 3))
    value[:, 2] = np.linspace(1, 2, 20)  # of the site b
    with record(tmp_path, value) as r:
        table = budget_table(r, "scale").set_index("site")
    assert table["reason"].to_dict() == {"a": "its charges did not move", "b": ""}
    assert np.isnan(table.loc["a", "closure_error"])
