"""Every learning rule: its laws are exact, its account closes, its decay is as said, and tracking it changes no bit."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import config
from neuralmech.compare.measure.accounts import CAUSES, account, budget_table
from neuralmech.compare.measure.errors import compare_family
from neuralmech.compare.measure.views import families
from neuralmech.config import OptimConfig
from neuralmech.config.optim import OPTIMIZERS
from neuralmech.record import open_record
from neuralmech.rules import DECOUPLED, decays_apart
from neuralmech.training.begin import begin
from neuralmech.training.loop import resume, take_step, train
from neuralmech.training.optimizers import build_any
from train_twins import assert_twins, stopped

pytestmark = pytest.mark.usefixtures("found_once")

GROUPS = [
    {"match": "bias", "weight_decay": 0.0, "lr": 2.0},
    {"match": "*0.weight", "lr": 0.5, "weight_decay": 3.0},
]
NET = {"name": "mlp", "width": 6, "depth": 2, "norm": "batch"}
ADAMW = {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05}
ADAM = {**ADAMW, "name": "adam"}
SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-3}
MUON = {"name": "muon", "lr": 2e-3, "momentum": 0.95, "nesterov": True, "weight_decay": 0.05}
OWN = {"name": "_target_", "lr": 2e-3, "weight_decay": 0.05}
COSINE = {"name": "cosine", "warmup": 5}
RULES = {
    "sgd": SGD,
    "sgdw": {**SGD, "name": "sgdw"},
    "nesterov": {**SGD, "nesterov": True},
    "sgd, groups": {**SGD, "groups": GROUPS},
    "nesterov, groups": {**SGD, "nesterov": True, "groups": GROUPS},
    "sgdw, groups": {**SGD, "name": "sgdw", "groups": GROUPS},
    "sgdw, nesterov, groups": {**SGD, "name": "sgdw", "nesterov": True, "groups": GROUPS},
    "sgd, clipped by norm": {**SGD, "clip_norm": 0.5},
    "sgd, clipped by value": {**SGD, "clip_value": 0.02},
    "sam": {**SGD, "sam_rho": 0.05},
    "adamw": ADAMW,
    "adam": ADAM,
    "adamw, amsgrad, groups": {**ADAMW, "amsgrad": True, "groups": GROUPS},
    "adam, groups, schedule": {**ADAM, "groups": GROUPS, "schedule": COSINE},
    "adamw, clipped, sam": {**ADAMW, "clip_norm": 0.5, "sam_rho": 0.05},
    "muon": MUON,
    "muon, exact, groups": {**MUON, "polar": "exact", "groups": GROUPS},
    "rmsprop": {**OWN, "target": "torch.optim.RMSprop"},
    "nadam, groups": {**OWN, "target": "torch.optim.NAdam", "groups": GROUPS},
    "lion": {**OWN, "target": "pytorch_optimizer.Lion", "arguments": {"betas": [0.9, 0.99]}},
    "soap, groups": {**OWN, "target": "pytorch_optimizer.SOAP", "groups": GROUPS},
    "own adamw": {**OWN, "target": "torch.optim.AdamW", "arguments": {"betas": [0.8, 0.99]}},
}


def made(tmp_path, optim, precision="fp64", steps=60, **parts):
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    given = {"model": NET, "track": {"norms": 0}, **parts}
    how = {"steps": steps, "precision": precision, "verify": False, "eval_every": 0}
    train(config(optim=optim, train=how, **given), folder)
    return folder


def errors(folder, law, only=None):
    """Largest error of a law over the sites of each family for which it holds."""
    with open_record(folder) as record:
        tables = {f: compare_family(record, f).table for f in families(record)}
    found = {f: t.loc[t["law"] == law, "error"].max() for f, t in tables.items()}
    return {f: e for f, e in found.items() if np.isfinite(e)}


@pytest.mark.parametrize("name", [n for n in RULES if n.startswith(("sgd", "nesterov"))])
def test_the_discrete_law_is_exact(tmp_path, name):
    found = errors(made(tmp_path, RULES[name]), "discrete_broken")
    assert len(found) == 3
    assert max(found.values()) <= 1e-12


def test_clipping_by_norm_keeps_the_law_and_by_value_does_not(tmp_path):
    """The shortened gradient is still orthogonal to the generator; the cut one is not, and R says by how much."""
    (tmp_path / "value").mkdir()
    by_norm = made(tmp_path, RULES["sgd, clipped by norm"])
    with open_record(by_norm) as record:
        clip = record.column("clip")
    assert clip.min() < 0.9
    assert clip.max() <= 1
    kept, lost = (
        errors(by_norm, "discrete"),
        errors(made(tmp_path / "value", RULES["sgd, clipped by value"]), "discrete"),
    )
    for family in ("translation", "rescale"):  # the scale charge has BatchNorm's eps besides
        assert kept[family] <= 1e-12
        assert lost[family] > 1e-3


def test_the_symmetry_up_the_gradient_closes_the_law_of_sam(tmp_path):
    folder = made(tmp_path, RULES["sam"], model={**NET, "norm": "none"})
    assert max(errors(folder, "discrete_ascent").values()) <= 1e-12
    assert errors(folder, "discrete")["rescale"] > 1e-3


@pytest.mark.parametrize(("precision", "bound"), [("fp64", 1e-12), ("fp32", 5e-5)])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    coupled=st.booleans(), amsgrad=st.booleans(), groups=st.booleans(), scheduled=st.booleans(),
    decay=st.sampled_from([0.0, 0.05]), betas=st.sampled_from([[0.9, 0.999], [0.8, 0.95], [0.0, 0.99]]),
)  # fmt: skip
def test_adams_law_is_exact(tmp_path_factory, precision, bound, coupled, amsgrad, groups, scheduled, decay, betas):
    optim = {
        "name": "adam" if coupled else "adamw", "lr": 2e-3, "weight_decay": decay, "amsgrad": amsgrad, "betas": betas,
        "groups": GROUPS if groups else [], **({"schedule": COSINE} if scheduled else {}),
    }  # fmt: skip
    folder = made(tmp_path_factory.mktemp("adam"), optim, precision, steps=30)
    found = errors(folder, "moving_metric")
    assert set(found) == {"translation_metric", "scale_metric", "rescale_metric"}
    assert max(found.values()) <= bound
    assert max(errors(folder, "constant_metric").values()) > 0.05  # the metric moves


def test_muon_does_not_move_translation_charges(tmp_path):
    """UVᵀ has the columns' space of the momentum; bfloat16 loses that, and leaves more than rounding."""
    (tmp_path / "iterated").mkdir()
    exact = made(tmp_path, {**MUON, "polar": "exact"})
    assert errors(exact, "discrete")["translation"] <= 1e-10
    assert errors(made(tmp_path / "iterated", MUON), "discrete")["translation"] > 1e-6
    with open_record(exact) as record:
        reasons = compare_family(record, "scale").table["reason"]
    assert reasons.str.startswith("muon makes all directions").all()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("precision", "bound"), [("fp64", 1e-12), ("fp32", 1e-4)])
def test_every_account_closes(tmp_path, name, precision, bound):
    """To the rounding of the parameters, which is the larger beside the motion the less a charge moves."""
    folder = made(tmp_path, RULES[name], precision, steps=60 if precision == "fp64" else 150)
    with open_record(folder) as record:
        for family in families(record):
            table = budget_table(record, family)
            size = np.abs(record.charges(family.removesuffix("_metric")).value[0]).mean()
            moving = table["moved"] > 1e-2 * size * table["charges"]
            assert (table["closure_error"][moving] <= bound).all()
            assert not table["reason"].str.contains("lacks|needs").any()


@pytest.mark.parametrize("name", ["adamw", "muon, exact, groups", "rmsprop"])
def test_causes_are_sums_over_the_steps(tmp_path, name):
    """The plain charge's parts from the recorded signals, step by step, and its motion from the charges alone."""
    folder = made(tmp_path, RULES[name])
    with open_record(folder) as record:
        charges, steps = record.charges("rescale"), record.steps()
        found = account(record, "rescale")
        q, d, w = (getattr(charges, s)[:-1] for s in ("value", "drive_update", "rule_work"))
        decayed = charges.decay[:-1] if "decay" in charges.signals else q
        lr, rate = steps["lr"][:-1], steps["weight_decay"][:-1] * steps["decoupled"][:-1]
        motion = charges.value[-1] - charges.value[0]
    wanted = {
        "weight_decay": -2 * (lr * rate) @ decayed, "rule": -2 * lr @ w, "discretisation": lr**2 @ d,
    }  # fmt: skip
    for cause in CAUSES:
        np.testing.assert_allclose(found.parts[cause], wanted.get(cause, 0.0), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(sum(wanted.values()), motion, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_known_whether_decay_is_apart(name):
    """What is said by name is what a trial finds; of the wrong one, the budget would take decay for the rule's work."""
    memory = {"momentum": 0.9} if name in ("sgd", "sgdw") else {}  # without, both decay alike

    def make(p, decay):
        return build_any(OptimConfig(name=name, lr=0.01, weight_decay=decay, **memory), [{"params": [p]}])

    apart = decays_apart(make, 0.01)
    assert apart == (name in DECOUPLED), f"{name} in DECOUPLED of neuralmech/rules.py should be {apart}"


@pytest.mark.parametrize("name", RULES)
def test_tracking_changes_no_bit(tmp_path, name):
    """The same steps with nothing measured but every fifth, on one charge's families."""
    parts = {"model": NET, "optim": RULES[name], "train": {"steps": 20, "verify": False}}
    thetas = []
    for track in ({}, {"steps": [[19, 20]], "families": ["translation"]}):
        run = begin(config(**parts, track=track))
        torch.manual_seed(0)
        for step in range(20):
            take_step(run, *run.batches(step))
        thetas.append(run.flat.theta.detach().clone())
        run.batches.close()
    assert torch.equal(*thetas)


@pytest.mark.parametrize("name", RULES)
def test_resumed_bit_for_bit(run, tmp_path, monkeypatch, name):
    optim = RULES[name]
    train = {"steps": 30, "verify": False, "eval_every": 0, "checkpoint": {"every": 10}}
    options = {"model": NET, "optim": optim, "train": train, "track": {"block": 7}}
    folder = stopped(tmp_path, monkeypatch, 24, options)
    own = {f"optim.{key}": value for key, value in optim.get("arguments", {}).items()}
    given = {"optim": "custom", "optim._target_": optim["target"], **own} if "target" in optim else {}
    resume(folder, given)
    assert_twins(folder, run(**options), 30)
