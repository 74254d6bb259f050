"""Laws against independent solvers, exact algebra and convergence slopes."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch.nn import functional as F

from neuralmech.laws import LAWS
from neuralmech.laws.integration import Integration
from neuralmech.laws.system import Circumstances, Hyperparameters

SIGNALS = (
    "drive_update", "drive_gradient", "residual", "unit_drive", "gradient_mean", "gradient_noise", "residual_of_ascent",
    "plain_charge", "metric_drive", "metric_drift",
)  # fmt: skip
OF_SGD = [name for name, law in LAWS.items() if "sgd" in law.optimizers]


def hyper(steps, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, decoupled=False):
    full = np.full(steps, 1.0)
    return Hyperparameters(
        lr=full * lr, momentum=full * momentum, dampening=full * dampening, weight_decay=full * weight_decay,
        nesterov=np.full(steps, nesterov), span=full, first=np.arange(steps) == 0,
        decoupled=np.full(steps, decoupled), batch_size=np.full(steps, 1), updates=np.arange(steps),
    )  # fmt: skip


def predict(name, h, values, signals, translation):
    law = LAWS[name]
    c = Circumstances("scale", translation=translation, signals=(), nesterov=bool(h.nesterov.any()))
    wanted = law.signals(c)
    inputs = np.stack([signals[s] for s in wanted], axis=1) if wanted else np.zeros((len(h), 0, values.shape[1]))
    run, half = Integration(law, translation=translation, signals=wanted), len(h) // 2
    return np.concatenate([
        run.advance(h[:half], values[0], inputs[:half]), run.advance(h[half:], values[half], inputs[half:])
    ])  # fmt: skip


def sgd(h, seed=0, dtype=torch.float64, broken=0.0, noise=True):
    """Real SGD on a scale- and shift-symmetric function; charges and drives straight from the definitions.

    The loss depends on θ/|θ| (charge |θ|²) and on c − mean(c) (charge Σc); `broken` adds a term without symmetry.
    """
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(2, 6, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randn(len(h), 6, generator=generator, dtype=dtype)
    if not noise:
        targets = targets[:1].expand(len(h), -1)
    b, out = None, {"q": [], "c": []}
    for k in range(len(h)):
        unit, shifted = theta[0] / theta[0].norm(), theta[1] - theta[1].mean()
        loss = ((unit - targets[k]) ** 2).sum() + F.softplus(shifted * targets[k]).sum() + broken * (theta**4).sum()
        (g,) = torch.autograd.grad(loss, theta)
        beta, delta = h.momentum[k], h.dampening[k]
        with torch.no_grad():
            decay = h.weight_decay[k] * theta
            d = g if h.decoupled[k] else g + decay
            b = d.clone() if b is None else beta * b + (1 - delta) * d
            u = d if beta == 0 else (d + beta * b if h.nesterov[k] else b)
            u = u + decay if h.decoupled[k] else u
            t, gg, uu, bb = (x.double().numpy() for x in (theta, g, u, b))
            q = (t[0] @ t[0], uu[0] @ uu[0], t[0] @ gg[0], uu[0] @ bb[0], gg[0] @ gg[0])
            out["q"].append(q)
            out["c"].append((t[1].sum(), uu[1].sum(), gg[1].sum(), bb[1].sum(), gg[1].sum()))
            theta -= h.lr[k] * u
    names = ("value", "drive_update", "residual", "drive_buffer", "drive_gradient")
    found = {kind: {n: np.array(rows)[:, i : i + 1] for i, n in enumerate(names)} for kind, rows in out.items()}
    for signals in found.values():
        signals["unit_drive"] = signals["drive_update"] * signals["value"]
        signals["gradient_mean"], signals["gradient_noise"] = signals["drive_gradient"], 0 * signals["value"]
    return found


@lru_cache
def noiseless(lr, momentum, nesterov, weight_decay=0.1, decoupled=False):
    h = hyper(int(1 / lr), lr, momentum, weight_decay=weight_decay, nesterov=nesterov, decoupled=decoupled)
    return sgd(h, noise=False)


@settings(max_examples=60, deadline=None)
@given(
    lr=st.floats(1e-3, 0.3), momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]), dampening=st.sampled_from([0.0, 0.4]),
    weight_decay=st.floats(0, 0.1), nesterov=st.booleans(), schedule=st.sampled_from(["constant", "varied"]),
    broken=st.sampled_from([0.0, 1e-2]), seed=st.integers(0, 99), decoupled=st.booleans(),
)  # fmt: skip
def test_discrete_law_is_exact(lr, momentum, dampening, weight_decay, nesterov, schedule, broken, seed, decoupled):
    """Momentum, dampening, Nesterov, decoupled decay, per-step η and λ: float64 rounding is all that is left."""
    nesterov = nesterov and momentum > 0
    h = hyper(60, lr, momentum, 0.0 if nesterov else dampening, weight_decay, nesterov, decoupled)
    if schedule == "varied":
        h.lr[:] *= np.linspace(0.2, 1, 60)
        h.weight_decay[:] *= np.linspace(1, 0.3, 60)
    found = sgd(h, seed, broken=broken)
    law = "discrete_broken" if broken else "discrete"
    for kind, translation in (("q", False), ("c", True)):
        signals = found[kind]
        scale = np.abs(signals["value"]).max()
        assert np.abs(predict(law, h, signals["value"], signals, translation) - signals["value"]).max() <= 1e-11 * scale


ORDERS = [
    ("weight_decay", 0.0, False, 1), ("weight_decay", 0.9, False, 1),
    ("first_order_flow", 0.0, False, 1), ("first_order_flow", 0.9, False, 1), ("first_order_flow", 0.8, True, 1),
    ("modified_flow", 0.0, False, 2), ("modified_flow", 0.9, False, 2), ("modified_flow", 0.8, True, 2),
    ("modified_loss", 0.0, False, 2), ("stochastic", 0.0, False, 2), ("noether", 0.0, False, 1),
    ("noether", 0.5, False, 1),
]  # fmt: skip
FORMS = [
    (*case, translation) for case in ORDERS for translation in (False, True) if case[0] != "noether" or not translation
]


@pytest.mark.parametrize(("name", "momentum", "nesterov", "order", "translation"), FORMS)
@pytest.mark.parametrize("decoupled", [False, True])
def test_halving_the_learning_rate_shrinks_the_error_at_the_expected_order(
    name, momentum, nesterov, order, translation, decoupled
):
    """Noiseless gradient descent over a fixed time, η = 2⁻¹⁰ … 2⁻¹²; slope of log error against log η."""
    if decoupled and name == "first_order_flow":
        momentum = min(momentum, 0.5)  # at 0.9 two errors of first order cancel in this range of η
    errors, rates = [], 2.0 ** -np.arange(10, 13)
    for lr in rates:
        h = hyper(int(1 / lr), lr, momentum, weight_decay=0.1, nesterov=nesterov, decoupled=decoupled)
        signals = noiseless(lr, momentum, nesterov, decoupled=decoupled)["c" if translation else "q"]
        theory = predict(name, h, signals["value"], signals, translation)
        errors.append(np.abs(theory[-1] - signals["value"][-1]).max())
    slope = np.polyfit(np.log(rates), np.log(errors), 1)[0]
    assert order - 0.25 <= slope <= order + 0.6, (slope, errors)


def test_gradient_flow_does_not_converge_with_weight_decay_and_does_at_first_order_without():
    for decay, order in ((0.1, 0.0), (0.0, 1.0)):
        errors = []
        for lr in (2.0**-7, 2.0**-9):
            h = hyper(int(1 / lr), lr, weight_decay=decay)
            signals = noiseless(lr, 0.0, False, decay)["q"]
            errors.append(
                abs(predict("gradient_flow", h, signals["value"], signals, False)[-1] - signals["value"][-1])[0]
            )
        assert np.log2(errors[0] / errors[1]) / 2 == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.2, 0.01), (0.9, 2.0), (0.9, None)])
def test_modified_flow_solves_its_equation(momentum, weight_decay):
    """Over-, under- and critically damped, against scipy's solver the drives held over each step."""
    lr = 0.1
    if weight_decay is None:  # (1−β)² = 4λη(1+β)
        weight_decay = (1 - momentum) ** 2 / (4 * lr * (1 + momentum))
    drive = np.random.default_rng(0).uniform(0.5, 1.5, 30)
    h = hyper(30, lr, momentum, weight_decay=weight_decay)
    values = np.full((30, 1), 2.0)
    theory = predict("modified_flow", h, values, {"drive_update": drive[:, None]}, False)[:, 0]

    def rate(x, held):
        acceleration = lr * (1 + momentum) * held - (1 - momentum) * x[1] - 2 * weight_decay * x[0]
        return [x[1], acceleration / (0.5 * lr * (1 + momentum))]

    state, truth, before = [2.0, -2 * weight_decay * 2.0 / (1 + momentum)], [], 0.0
    for held in drive:
        truth.append(state[0])
        state[1] += lr * (1 - momentum) / (1 + momentum) * (held - before)  # ½η²(1−β)D' over a jump of D
        state = solve_ivp(lambda t, x, d=held: rate(x, d), (0, lr), state, rtol=1e-11, atol=1e-12).y[:, -1]
        before = held
    np.testing.assert_allclose(theory, truth, rtol=1e-8)


@pytest.mark.parametrize("jumps", ["drive_update", "drive_buffer"])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)])
def test_modified_flow_answers_a_jump_of_the_drive_in_time(momentum, nesterov, jumps):
    """A drive that sets in moves the charge at a constant rate in the end, and a delay would offset it forever."""
    h = hyper(600, 0.1, momentum, nesterov=nesterov)
    drives = {name: np.zeros((600, 1)) for name in ("drive_update", "drive_buffer")}
    drives[jumps][100:] = 1.0
    exact, flow = (predict(law, h, np.ones((600, 1)), drives, False) for law in ("discrete", "modified_flow"))
    one_step = abs(exact[-1] - exact[-2])
    assert one_step > 0 or (jumps == "drive_buffer" and not nesterov)
    assert abs(flow[-1] - exact[-1]) <= 1e-9 * one_step + 1e-14


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)])
def test_modified_flow_follows_the_discrete_law_under_noise(momentum, nesterov, decoupled):
    """Drives that jump and weight decay: what is left is (ηλ/(1−β))² and noise of third order."""
    h = hyper(400, 0.01, momentum, weight_decay=0.1, nesterov=nesterov, decoupled=decoupled)
    generator = np.random.default_rng(0)
    drives = {name: generator.uniform(0, 100, (400, 1)) for name in ("drive_update", "drive_buffer")}
    exact, flow = (predict(law, h, np.ones((400, 1)), drives, False) for law in ("discrete", "modified_flow"))
    small = 0.01 * 0.1 / (1 - momentum)
    assert np.abs(flow - exact).max() <= (20 * small**2 + 2e-4) * np.ptp(exact)


@pytest.mark.parametrize("translation", [False, True])
@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov"),
    [(0.0, 0.0, False), (0.5, 0.0, False), (0.9, 0.0, False), (0.9, 0.3, False), (0.5, 0.8, False), (0.9, 0.0, True)],
)
def test_modified_flow_takes_jumps_of_weight_decay_in_time(momentum, dampening, nesterov, translation):
    """λ = 0.1, 0.01, 0.1 from a dampened start: half a step late it would be off by 1e-4 … 1e-3."""
    h = hyper(600, 0.01, momentum, dampening, 0.1, nesterov)
    h.weight_decay[200:400] = 0.01
    drives = {} if translation else {name: np.zeros((600, 1)) for name in ("drive_update", "drive_buffer")}
    exact, flow = (predict(law, h, np.ones((600, 1)), drives, translation) for law in ("discrete", "modified_flow"))
    after = np.r_[190:200, 390:400, 590:600]  # within 1/(1−β) steps of a jump the expansion in η/(1−β) is coarser
    assert np.abs(flow - exact)[after].max() <= 2.5e-6 / (1 - momentum)


def test_modified_flow_is_exact_without_momentum_and_weight_decay():
    drive = {"drive_update": np.random.default_rng(0).uniform(0.0, 2.0, (50, 3))}
    h, values = hyper(50, 0.1), np.ones((50, 3))
    flow, exact = (predict(law, h, values, drive, False) for law in ("modified_flow", "discrete"))
    np.testing.assert_allclose(flow, exact, rtol=1e-13)


@pytest.mark.parametrize("name", LAWS)
def test_long_underdamped_runs_do_not_overflow(name):
    h = hyper(5000, 0.1, 0.99, weight_decay=1e-3)
    values, signals = np.ones((5000, 1)), {s: np.full((5000, 1), 1e-3) for s in SIGNALS}
    assert np.isfinite(predict(name, h, values, signals, False)).all()


def test_rows_several_steps_apart_compose_single_steps():
    """With the drive constant, every third row of a law equals the law at every third row."""
    fine = hyper(30, 0.1, 0.9, weight_decay=0.05)
    kept = {n: getattr(fine, n)[::3].copy() for n in fine.__dataclass_fields__ if n != "of_rules"}
    coarse = Hyperparameters(**kept)
    coarse.span[:] = 3
    values, drive = np.ones((30, 1)), np.full((30, 1), 0.2)
    for name in OF_SGD:
        signals = {s: 0 * drive if "residual" in s else drive for s in SIGNALS}
        every = predict(name, fine, values, signals, False)
        thinned = predict(name, coarse, values[::3], {k: v[::3] for k, v in signals.items()}, False)
        if name.startswith("discrete"):  # its first step differs from the others
            assert np.abs(thinned - every[::3]).max() < 0.02
        else:
            np.testing.assert_allclose(thinned, every[::3], rtol=1e-10)
