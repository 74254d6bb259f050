"""Equilibrium of a weight on a sphere under white gradients, by the optimisers themselves in float64."""

import numpy as np
import pytest
import torch

from neuralmech.laws.equilibrium import Equilibrium, equilibrium
from neuralmech.laws.system import Circumstances
from neuralmech.training.optimizers import SGDW

LR, DECAY, ENTRIES, WEIGHTS = 1e-3, 1.0, 256, 32  # a relaxation time is 500 steps


def under(name, **more):
    return Circumstances("scale", translation=False, signals=(), optimizer=name, decoupled=name != "sgd", **more)


def walk(make, size, steps=3000):
    """RMS angle per step, mean squared radius and squared length of Δθ/η, over the last half of a walk."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(WEIGHTS, ENTRIES, dtype=torch.float64, generator=generator)
    theta = torch.nn.Parameter(theta * (1.2 * size / ENTRIES) ** 0.5)  # 20 % from the predicted radius
    optimizer = make([theta])
    found = np.zeros(3)
    for step in range(steps):
        noise = torch.randn(theta.shape, dtype=torch.float64, generator=generator)
        with torch.no_grad():
            before, radius = theta.clone(), theta.norm(dim=1, keepdim=True)
            along = (noise * before).sum(dim=1, keepdim=True) / radius**2
            theta.grad = (noise - along * before) / radius
            optimizer.step()
            if step >= steps // 2:
                cosine = (before * theta).sum(dim=1) / (radius[:, 0] * theta.norm(dim=1))
                means = (cosine.arccos() ** 2, radius**2, ((before - theta) / LR).square().sum(dim=1))
                found += [float(m.mean()) for m in means]
    angle, square, drive = found / (steps - steps // 2)
    return angle**0.5, square, drive


def lion(p, *betas):
    return pytest.importorskip("timm.optim.lion").Lion(p, lr=LR, weight_decay=DECAY, betas=betas)


def adamw(p):
    return torch.optim.AdamW(p, lr=LR, weight_decay=DECAY, eps=1e-12)


RULES = {
    "adamw": (adamw, {"betas": [0.9, 0.999]}),
    "Signum": (lambda p: lion(p, 0.9, 0.9), {"momentum": 0.9}),  # the same rule
    "SignSGD": (lambda p: lion(p, 0.0, 0.9), {"momentum": 0.0}),  # by the gradient alone
    "Lion": (lambda p: lion(p, 0.9, 0.95), {"betas": [0.9, 0.95]}),
}


@pytest.mark.parametrize("name", RULES)
def test_angle_and_radius_under_rules_whose_updates_have_a_length_of_their_own(name):
    """φ = √(2ηλ·turn) and Q = nη·length/(2λ·turn), to first order in ηλ/(1−β), here 0.01 to 0.02; half of it in φ.

    Besides, the radius of 32 weights over three relaxation times is sampled to one percent, and v̂ of Adam lags by 1,000
    steps behind gradients that grow as the radius comes down to its equilibrium, so that updates are too long.
    """
    make, options = RULES[name]
    law = equilibrium(under(name), options)
    assert isinstance(law, Equilibrium)
    size = ENTRIES * LR * law.length / (2 * DECAY * law.turn)
    angle, square, drive = walk(make, size)
    assert angle == pytest.approx((2 * LR * DECAY * law.turn) ** 0.5, rel=0.02)
    assert square == pytest.approx(size, rel=0.03)
    assert drive == pytest.approx(ENTRIES * law.length, rel=0.02)


@pytest.mark.parametrize("name", ["sgd", "sgdw"])
def test_angle_and_radius_under_sgd(name):
    """Q² = ηDQ/(2λ·turn), where D is the gradient's; to first order in ηλ/(1−β) = 0.01."""
    momentum = 0.9
    law = equilibrium(under(name), {"momentum": momentum})
    assert isinstance(law, Equilibrium)
    options = {"lr": LR, "momentum": momentum}
    buffer = ENTRIES / (1 - momentum**2)  # D̂ of white gradients
    size = (LR * buffer / (2 * DECAY * law.turn)) ** 0.5

    def make(p):
        return torch.optim.SGD(p, weight_decay=DECAY, **options) if name == "sgd" else SGDW(p, decay=DECAY, **options)

    angle, square, drive = walk(make, size)
    assert angle == pytest.approx((2 * LR * DECAY * law.turn) ** 0.5, rel=0.01)
    assert square == pytest.approx(LR * drive / (2 * DECAY * law.turn), rel=0.02)
    assert square == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize(
    ("c", "options", "text"),
    [
        (under("muon"), {}, "depends on the other filters"),
        (under("adam"), {"betas": [0.9, 0.999]}, "size of the gradient"),
        (under("adamw"), {"betas": [0.9, 0.999], "amsgrad": True}, "AMSGrad"),
        (under("adamw", ascent=True), {"betas": [0.9, 0.999]}, "not orthogonal"),
        (under("adamw"), {"betas": [0.9, 0.999], "clip_value": 0.1}, "not orthogonal"),
        (under("adamw", mixed=True), {"betas": [0.9, 0.999]}, "decay at different rates"),
        (under("", mixed=True), {}, "two rules"),
        (under("Lion"), {}, "no momentum of Lion"),
        (under("Lion"), {"betas": [0.9, 1.5]}, "no momentum of Lion"),
        (under("Lion"), {"betas": [0.9, 0.99], "caution": True}, "without caution"),
        (under("SOAP"), {}, "not derived for SOAP"),
        (under("sgd", nesterov=True), {"momentum": 0.9}, "without Nesterov"),
        (Circumstances("scale", False, (), optimizer="Signum"), {"momentum": 0.9}, "weight decay goes through"),
    ],
)
def test_where_nothing_is_claimed_a_reason_says_why(c, options, text):
    law = equilibrium(c, options)
    assert isinstance(law, str)
    assert text in law
