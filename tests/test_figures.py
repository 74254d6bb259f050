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


def written_out(tiny, theta):
    """The losses of the tiny models in NumPy, at one point."""
    x, y = tiny.inputs.numpy(), tiny.targets.numpy()
    if tiny.family == "translation":
        return np.logaddexp(0, np.where(y == 1, -1, 1) * (theta[1] - theta[0]) * x[:, 0]).mean()
    if tiny.family == "scale":
        z = x @ theta
        return np.logaddexp(0, np.where(y[:, 0] == 1, -1, 1) * (z - z.mean()) / z.std()).mean()
    return ((theta[1] * np.maximum(theta[0] * x[:, 0], 0) - y[:, 0]) ** 2).mean()


def test_fields_of_real_models_are_orthogonal_to_their_generators():
    """To float64's rounding, over the figure's grid; gradients are those of losses written out in NumPy."""
    from source_figures.fields import BATCH, STEPS, grid, views

    random = np.random.default_rng(0)
    for view, form in zip(views(), ([1, 1], [1, 1], [1, -1]), strict=True):
        tiny, at = view.tiny, grid(40)
        np.testing.assert_array_equal(tiny.form, form)
        lean = tiny.lean(at)
        assert np.median(lean) < 1e-15
        assert np.quantile(lean, 0.98) < 2e-13  # larger where the gradient vanishes
        turned = tiny.generators(at)[:, ::-1] * [1, -1]  # at right angles to the generator, where the gradient lies
        g = tiny.gradients(at)
        cosine = (g * turned).sum(axis=1) / np.linalg.norm(g, axis=1) / np.linalg.norm(turned, axis=1)
        np.testing.assert_allclose(np.abs(cosine), 1, atol=1e-9)
        for point in random.uniform(0.3, 2, (5, 2)) * random.choice([-1, 1], (5, 2)):
            numeric = [(written_out(tiny, point + h) - written_out(tiny, point - h)) / 2e-6 for h in 1e-6 * np.eye(2)]
            np.testing.assert_allclose(tiny.gradients(point[None])[0], numeric, rtol=1e-5, atol=1e-7)
        start = np.array(view.starts[0])
        flow = tiny.charges(tiny.flow(start, view.duration))
        assert np.abs(flow - flow[0]).max() < 1e-8
        path, slopes = tiny.sgd(start, view.lr, STEPS, BATCH)
        moved = np.abs(tiny.charges(path) - flow[0]).max()
        assert moved < 1e-14 if tiny.family == "translation" else moved > 0.2
        np.testing.assert_allclose(tiny.charges(path), tiny.law(start, slopes, view.lr), atol=1e-13)


def test_sgd_leaves_the_sphere_by_the_sum_of_its_squared_steps():
    """Outwards at every step, while gradient flow stays on it; arrows are tangent, and drawn only in front."""
    from source_figures.sphere import BATCH, DURATION, RUNS, outline, ring, spread
    from source_figures.tiny import normalised

    tiny = normalised(3)
    at = spread(500)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([at, outline(), ring(tiny)]), axis=1), 1)
    assert np.median(tiny.lean(at)) < 1e-15
    assert tiny.lean(at).max() < 1e-12
    start = ring(tiny)[0]
    assert np.abs(np.linalg.norm(tiny.flow(start, DURATION), axis=1) - 1).max() < 1e-8
    for lr, _, _ in RUNS:
        path, _ = tiny.sgd(start, lr, 40, BATCH)
        radius = (path**2).sum(axis=1)
        assert (np.diff(radius) > 0).all()
        np.testing.assert_allclose(np.diff(radius), (np.diff(path, axis=0) ** 2).sum(axis=1), atol=1e-13)


@pytest.mark.parametrize("translation", [True, False])
@pytest.mark.parametrize("momentum", [0.8, 0.95, 0.99])
def test_the_closed_form_of_portraits_solves_the_oscillator(momentum, translation):
    from scipy.integrate import solve_ivp
    from source_figures.portraits import DECAY, LR, closed_form

    spring = (1 if translation else 2) * DECAY
    times = np.linspace(0, 10, 101)
    found = solve_ivp(
        lambda _, s: (s[1], -((1 - momentum) * s[1] + spring * s[0]) / (LR * (1 + momentum) / 2)),
        (0, 10), (1, -spring / (1 + momentum)), t_eval=times, rtol=1e-11, atol=1e-13, method="DOP853", max_step=0.02,
    )  # fmt: skip
    np.testing.assert_allclose(closed_form(momentum, times, translation=translation), found.y, atol=1e-8)


def test_column_sums_in_phase_space_are_one_curve(tmp_path):
    """Of a trained conv net, over their starts, in float32: the closed form, which knows neither data nor network."""
    from source_figures.portraits import LR, closed_form, column_sums
    from source_figures.runs import Runs

    start, value, velocity = column_sums(Runs(tmp_path), 0.99)
    theory = closed_form(0.99, LR * (np.arange(len(value)) + 0.5))
    assert value.shape[1] == 32
    assert np.ptp(theory[1]) > 1
    for found, exact in zip((value, velocity), theory, strict=True):
        wanted = exact[:, None] * start
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
        assert np.abs(found / start - exact[:, None]).max() < 4e-3  # also of a sum that starts near zero


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
