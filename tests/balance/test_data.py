"""Data symmetry of the first layer: exact for the group the data is closed under, a quadrature for its generator."""

import numpy as np
import pytest
import torch
from torch import nn

from neuralmech.balance import angular_momentum, finite_change, orbit, rotations
from neuralmech.errors import UserError

TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


def planar(activation, seed=0, samples=5):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), activation(), nn.Linear(16, 3)).double()
    return model, torch.randn(samples, 2, dtype=torch.float64), torch.randint(3, (samples,))


def momentum(activation, count):
    model, x, y = planar(activation)
    found, size = angular_momentum(model, "0.weight", *orbit(x, y, rotations(TURN, count)), TURN)
    return abs(found) / size


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_loss_is_invariant_under_the_group_of_the_data_and_no_other(activation, count):
    model, x, y = planar(activation)
    group = rotations(TURN, count)
    augmented = orbit(x, y, group)
    for element in group:
        assert abs(finite_change(model, "0.weight", *augmented, element)) < 1e-14
    between = torch.linalg.matrix_exp(np.pi / count * TURN)
    assert abs(finite_change(model, "0.weight", *augmented, between)) > 1e-6


def test_momentum_is_the_derivative_of_the_finite_change():
    model, x, y = planar(nn.Tanh)
    found, _ = angular_momentum(model, "0.weight", x, y, TURN)
    change = [finite_change(model, "0.weight", x, y, torch.linalg.matrix_exp(a * TURN)) for a in (-1e-5, 1e-5)]
    assert found == pytest.approx((change[1] - change[0]) / 2e-5, rel=1e-6)


def test_momentum_vanishes_exponentially_with_the_number_of_rotations_for_a_smooth_activation():
    errors = [momentum(nn.Softplus, n) for n in (1, 4, 8, 16)]
    assert errors[0] > 0.1
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 1e-2 * errors[1]
    assert errors[3] < 1e-4 * errors[2]
    assert momentum(nn.Softplus, 32) < 1e-14


def test_momentum_vanishes_like_a_power_for_relu():
    """The loss of a rotating sample has kinks: c_m ~ m⁻², so the slope's error n c_n falls as 1/n."""
    counts = np.array([16, 32, 64, 128, 256, 512])
    errors = []
    for n in counts:
        found = []
        for seed in range(20):
            model, x, y = planar(nn.ReLU, seed)
            found.append(angular_momentum(model, "0.weight", *orbit(x, y, rotations(TURN, int(n))), TURN)[0])
        errors.append(np.sqrt(np.mean(np.square(found))))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -1.3 < slope < -0.7, (slope, errors)


def test_a_sign_flip_is_exact_and_has_no_generator():
    """x ↦ −x: the loss is even in W; the gradient is odd, so W = 0 would stay."""
    model, x, y = planar(nn.Tanh)
    flip = -torch.eye(2, dtype=torch.float64)
    augmented = orbit(x, y, [torch.eye(2, dtype=torch.float64), flip])
    assert abs(finite_change(model, "0.weight", *augmented, flip)) < 1e-15
    assert abs(finite_change(model, "0.weight", x, y, flip)) > 1e-3
    with torch.no_grad():
        model[0].weight.zero_()
    nn.functional.cross_entropy(model(augmented[0]), augmented[1]).backward()
    assert model[0].weight.grad.abs().max() < 1e-16


def test_the_action_on_the_channels_of_a_convolution():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(16, 3)).double()
    x, y = torch.randn(4, 2, 4, 4, dtype=torch.float64), torch.randint(3, (4,))
    found, size = angular_momentum(model, "0.weight", *orbit(x, y, rotations(TURN, 24)), TURN)
    alone, _ = angular_momentum(model, "0.weight", x, y, TURN)
    assert abs(found) < 1e-11 * size
    assert abs(alone) > 1e-4 * size


def test_full_batch_descent_keeps_the_momentum_zero():
    """⟨u_k, W_k A⟩ = 0 at every step of SGD on the augmented batch; momentum remembers other W's and breaks it."""
    for beta, holds in ((0.0, True), (0.9, False)):
        model, x, y = planar(nn.Tanh)
        x, y = orbit(x, y, rotations(TURN, 64))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=beta)
        worst = 0.0
        for _ in range(30):
            before = model[0].weight.detach().clone()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            step = model[0].weight.detach() - before
            worst = max(worst, float((step * (before @ TURN)).sum().abs() / (step.norm() * before.norm())))
        assert (worst < 1e-12) == holds, worst


def test_a_wrong_weight_or_generator_is_named():
    model, x, y = planar(nn.Tanh)
    with pytest.raises(UserError, match=r"weight=1\.weight"):
        angular_momentum(model, "1.weight", x, y, TURN)
    with pytest.raises(UserError, match=r"\(3, 3\) does not act on the 2 features"):
        angular_momentum(model, "0.weight", x, y, torch.eye(3))
