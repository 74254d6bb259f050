"""Whether a learning rule keeps the symmetries, in theory and as measured."""

import pytest

from neuralmech.compare.measure.kinetic import kinetic_table
from neuralmech.laws.kinetic import KineticRule, kept
from neuralmech.record import open_record

NET = {"name": "mlp", "width": 6, "depth": 2, "norm": "batch"}
MUON = {"name": "muon", "lr": 2e-3, "momentum": 0.95, "nesterov": True}


def table(run, optim):
    how = {"precision": "fp64", "steps": 40, "verify": False}
    with open_record(run(model=NET, optim=optim, train=how, track={"norms": 4})) as record:
        return kinetic_table(record).set_index(["family", "site"])


def test_what_theory_says_is_kept_is_not_leaned_on(run):
    """Muon's translation of a matrix to rounding; its biases are AdamW's, and lean."""
    found = table(run, {**MUON, "polar": "exact"})
    weight, bias = (found.loc[("translation", f"classifier.{name}")] for name in ("weight", "bias"))
    assert (weight["keeps"], weight["rule"], weight["rows"]) == ("exactly", "muon", 10)
    assert weight["largest_lean"] < 1e-10
    assert (bias["keeps"], bias["rule"]) == ("no", "adamw")
    assert bias["lean"] > 1e-3
    assert found.loc[("scale", "features.0"), "lean"] > 1e-3
    assert found.loc[("rescale", "features.4 -> classifier"), "rule"] == "several"


def test_the_iteration_in_bfloat16_leans_and_says_so(run):
    weight = table(run, {**MUON, "polar": "newton_schulz"}).loc[("translation", "classifier.weight")]
    assert weight["keeps"] == "no"
    assert "3.4445⁵ = 485" in weight["reason"]
    assert weight["lean"] > 1e-4


def test_sgd_keeps_all_and_is_not_measured(run):
    found = table(run, {"name": "sgd", "lr": 0.05, "momentum": 0.9})
    assert (found["keeps"] == "exactly").all()
    assert found["lean"].isna().all()


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_adam_leans_on_everything(run, name):
    found = table(run, {"name": name, "lr": 1e-3})
    assert (found["keeps"] == "no").all()
    assert (found["lean"] > 1e-3).all()
    assert (found["largest_lean"] <= 1 + 1e-12).all()


@pytest.mark.parametrize(
    ("rule", "exactly"),
    [
        (KineticRule("sgd"), {"translation", "scale", "rescale"}),
        (KineticRule("sgd", cuts=True), set()),
        (KineticRule("sgdw", ascends=True), {"translation"}),
        (KineticRule("muon"), {"translation"}),
        (KineticRule("muon", iterates=True), set()),
        (KineticRule("adamw"), set()),
        (KineticRule("Lion"), set()),
    ],
    ids=["sgd", "cut", "ascent", "muon", "iterated", "adamw", "another's"],
)
def test_what_a_rule_keeps(rule, exactly):
    assert {family for family in ("translation", "scale", "rescale") if kept(rule, family).exactly} == exactly
