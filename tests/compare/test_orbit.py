"""Noise equilibrium of rescale pairs: the law against its closed form, sides by definition, and runs that go there."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nets_tracked import NETS
from neuralmech.charges.sides import Sides as Recorded
from neuralmech.charges.step import Step
from neuralmech.compare.measure.orbit import noise_equilibrium
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from neuralmech.laws.orbit import FARTHEST, OrbitSides, to_equilibrium
from neuralmech.record import open_record
from neuralmech.symmetry.layout import Layout

SIZES = st.floats(1e-3, 1e3)


def solved(*numbers, decay=1e-2, rate=0.1):
    of = OrbitSides(*(np.array([v], dtype=float) for v in numbers))
    return float(to_equilibrium(of, np.array([decay]), np.array([rate]))[0])


@given(SIZES, SIZES, SIZES, SIZES, SIZES, SIZES)
def test_the_law_is_its_closed_form_of_degree_one(q_in, q_out, g_in, g_out, decay, rate):
    wanted = np.log((2 * decay * q_out + rate * g_in) / (2 * decay * q_in + rate * g_out)) / 4
    assert solved(q_in, q_out, g_in, g_out, 1, 1, decay=decay, rate=rate) == pytest.approx(wanted, abs=1e-12)


@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 3]), st.floats(-1, 1))
def test_it_moves_with_the_point_along_the_orbit(q_in, q_out, g_in, g_out, a, b, by):
    """Whatever the degree: from ψ(θ, δ) the equilibrium is nearer by δ, and it is there that Q rests."""
    start = solved(q_in, q_out, g_in, g_out, a, b)

    def moved(by):
        return (
            np.exp(2 * a * by) * q_in,
            np.exp(-2 * b * by) * q_out,
            np.exp(-2 * a * by) * g_in,
            np.exp(2 * b * by) * g_out,
        )

    assert solved(*moved(by), a, b) == pytest.approx(start - by, abs=1e-9)
    there = moved(start)
    forces = 2e-2 * there[0], 2e-2 * there[1], 0.1 * there[2], 0.1 * there[3]
    assert abs(forces[0] - forces[1] - forces[2] + forces[3]) < 1e-9 * sum(forces)


def test_what_nothing_holds_has_no_equilibrium():
    assert np.isnan(solved(1, 1, 0, 0, 1, 1, decay=0.0))
    assert np.isnan(solved(1, 1, 1, 1, np.nan, 1))
    assert solved(1, 0, 0, 1, 1, 1) == pytest.approx(-FARTHEST)  # decay and noise both shrink one side


@pytest.mark.parametrize("name", ["residual", "residual_conv", "grouped"])
def test_sides_are_their_definitions(name):
    build, inputs = NETS[name][:2]
    torch.manual_seed(0)
    model = build().double().train()
    found = find_symmetries(model, inputs().double())
    layout = Layout.by_shape({n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad})
    sides = Recorded(found.families["rescale"], layout, torch.device("cpu"))
    theta, gradient = torch.randn(2, layout.size, dtype=torch.float64)
    out = torch.zeros(2, sides.count, dtype=torch.float64)
    sides.evaluate(Step(theta, theta, gradient, 1.0), out)
    order = np.concatenate(
        [np.arange(layout.offsets[n], layout.offsets[n] + p.numel()) for n, p in model.named_parameters()]
    )
    generators = found.generators()["rescale"]
    for row, vector in zip(out.numpy(), (theta.numpy()[order], gradient.numpy()[order]), strict=True):
        np.testing.assert_allclose(row, abs(generators) @ vector**2, rtol=1e-12)
    dense = generators.toarray()
    np.testing.assert_array_equal(sides.rates[0], dense.max(axis=1))
    np.testing.assert_array_equal(sides.rates[1], -dense.min(axis=1))


def shifted(shape, classes, by, power=1):
    """A net of one hidden layer, moved along the orbit of its rescale symmetry."""

    class Power(nn.Module):
        def forward(self, h):
            return torch.relu(h) ** power

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(shape[0], 16), Power(), nn.Linear(16, classes, bias=False))
    with torch.no_grad():
        net[0].weight.mul_(np.exp(by))
        net[0].bias.mul_(np.exp(by))
        net[2].weight.mul_(np.exp(-power * by))
    return net


def trained(run, by, power=1, steps=1, optim=(), **options):
    given = {"lr": 0.05, "weight_decay": 0.01, **dict(optim)}
    data = {"label_noise": 0.5, "shape": [5], "size": 256, "batch_size": 16}
    model = {"_target_": f"{__name__}.shifted", "shape": [5], "classes": 3, "by": by, "power": power}
    how = {"precision": "fp64", "steps": steps, "verify": False}
    with open_record(run(model=model, data=data, optim=given, train=how, track={"sides": True}, **options)) as record:
        return noise_equilibrium(record), record.charges("rescale").index


@pytest.mark.parametrize("power", [1, 2])
def test_a_start_that_is_moved_is_so_much_farther(run, power):
    """All charges by δ: the loss and its noise are the same along the orbit."""
    (_, near), index = trained(run, 0.0, power, steps=2)
    (_, far), _ = trained(run, 0.5, power, steps=2)
    assert set(index["rate_in"]) == {1.0}
    assert set(index["rate_out"]) == {float(power)}
    (a,), (b,) = near.distance.values(), far.distance.values()
    assert 0.2 < b[0] < a[0] + 0.5


RULES = [{"lr": 0.1}, {"momentum": 0.9, "lr": 0.01}, {"name": "sgdw", "lr": 0.1}]


@pytest.mark.parametrize("optim", RULES)
def test_noise_and_decay_bring_a_pair_to_equilibrium(run, optim):
    """Within some multiples of 1/2ηλ = 500 steps."""
    (table, curve), _ = trained(run, 0.7, steps=5000, optim=optim)
    assert (table["start"] > 0.8).all()
    assert (table["end"] < 0.05).all()
    assert len(curve.step) == 50
    assert (table["noise"] + table["decay"]).to_numpy() == pytest.approx(1)


@pytest.mark.parametrize(
    "optim", [{"name": "adamw", "lr": 1e-3}, {"momentum": 0.9, "nesterov": True}, {"clip_norm": 1.0}]
)
def test_rules_without_a_theory_say_so(run, optim):
    (table, curve), _ = trained(run, 0.0, steps=4, optim=optim)
    assert curve is None
    assert (table["reason"] != "").all()
    assert table["end"].isna().all()


def test_wrong_options_are_told(run):
    with pytest.raises(UserError, match=r"track\.sides=true is of single charges; use track\.charges=all"):
        run(track={"sides": True, "charges": "site"})
    with pytest.raises(UserError, match=r"track\.sides=true: this model has no rescale charges"):
        run(track={"sides": True}, model={"activation": "tanh"})
