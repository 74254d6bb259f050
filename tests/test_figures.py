"""What the figures compute, and that the theory's page names figures and tests that exist."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    if not (ROOT / "scripts").is_dir():
        pytest.skip("scripts/ is not part of this installation")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


@pytest.mark.parametrize(
    ("name", "momentum", "order"),
    [
        ("gradient flow", 0.0, 1),
        ("gradient flow", 0.9, 1),
        ("modified loss", 0.0, 2),
        ("modified flow", 0.0, 2),
        ("modified flow", 0.9, 2),
    ],
)
def test_models_of_descent_on_a_quadratic_converge_at_their_order(name, momentum, order):
    from source_figures.quadratic import descent, model

    rates = 2.0 ** -np.arange(9, 13)
    errors = [
        np.linalg.norm(model(name, lr, momentum, np.array([1.0]))[0] - descent(lr, momentum, round(1 / lr))[-1])
        for lr in rates
    ]
    assert np.polyfit(np.log(rates), np.log(errors), 1)[0] == pytest.approx(order, abs=0.1)


def test_plane_losses_have_the_symmetry_and_the_charge_that_the_figure_says():
    from source_figures.planes import PLANES

    at = np.random.default_rng(0).uniform(-2, 2, (2, 50))
    for plane in PLANES:
        gradient, generator = np.array(plane.gradient(*at)), np.array(plane.generator(*at))
        for i, step in enumerate(1e-6 * np.eye(2)):
            numeric = (plane.loss(*(at + step[:, None])) - plane.loss(*(at - step[:, None]))) / 2e-6
            np.testing.assert_allclose(gradient[i], numeric, rtol=1e-5, atol=1e-7)
        assert np.abs((gradient * generator).sum(axis=0)).max() < 1e-12
        along = (plane.charge(*(at + 1e-6 * gradient)) - plane.charge(*(at - 1e-6 * gradient))) / 2e-6
        assert np.abs(along).max() < 1e-7 < np.abs(gradient).max()


def test_rmsprop_form_converges_to_descent_on_a_sphere():
    """L(θ/|θ|) with weight decay: Q² of the RMSProp form against |θ|⁴ at t = 1, first order in η."""
    from source_figures.training import rmsprop_form

    target, errors, rates = np.array([0.3, -1.0, 0.5]), [], 2.0 ** -np.arange(5, 9)
    for lr in rates:
        theta, q, g = np.array([1.0, 0.5, -0.2]), [], []
        for _ in range(round(1 / lr) + 1):
            radius = np.linalg.norm(theta)
            unit = theta / radius
            gradient = (target - (target @ unit) * unit) / radius
            q.append(radius**2)
            g.append(gradient @ gradient)
            theta = theta - lr * (gradient + 0.2 * theta)
        q, g = np.array(q)[:, None], np.array(g)[:, None]
        errors.append(abs(rmsprop_form(q, g, lr, 0.2)[-1, 0] - q[-1, 0] ** 2))
    assert np.polyfit(np.log(rates), np.log(errors), 1)[0] == pytest.approx(1, abs=0.15)


def test_layers_of_a_homogeneous_net_grow_together():
    """Under gradient flow differences of |W_l|² stay, while each moves; under descent they follow the drive exactly."""
    from source_figures.bounded import RATES, departures, descent, flow

    paths = [np.diff(flow(step), axis=1) for step in (0.02, 0.01, 0.005)]
    off = [np.abs(path - path[0]).max() for path in paths]
    assert np.polyfit(np.log([4, 2, 1]), np.log(off), 1)[0] == pytest.approx(1, abs=0.2)  # sliding along kinks of ReLU
    assert off[-1] < 2e-3
    assert (np.abs(np.diff(flow(0.01)[[0, -1]], axis=0)) > 1.5).all()
    norms, driven = descent(0.4)
    np.testing.assert_allclose(np.diff(norms - driven, axis=1), np.diff(norms[:1], axis=1).repeat(len(norms), axis=0))
    off = departures()
    assert np.log2(off[-2] / off[-1]) == pytest.approx(1, abs=0.1)  # of the two smallest learning rates
    assert RATES[-2] == 2 * RATES[-1]


def test_parameters_are_kept_after_every_step(tmp_path):
    from source_figures.runs import Runs

    kept = Runs(tmp_path).parameters(steps=3)
    assert len(kept) == 3
    assert not (kept[0] == kept[1]).all()


def test_theory_names_every_figure_and_tests_that_exist():
    from figures import FIGURES

    text = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8") + (ROOT / "README.md").read_text(encoding="utf-8")
    drawn = set(re.findall(r"figures/(\w+)\.png", text))
    assert drawn == {*FIGURES, "learning_rules"}  # the latter of `scripts/learning_rules.py`, with its table
    assert all((ROOT / "docs" / "figures" / f"{name}.png").is_file() for name in drawn)
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
