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


def momenta(steps=30, start=None, **options):
    """⟨b_k, W_k A⟩ of the first layer at each step of descent on the whole orbit, and the size that it could have.

    At 48 rotations the gradient's own momentum is rounding, for this activation and as far as these weights go.
    """
    model, x, y = planar(nn.Softplus)
    x, y = orbit(x, y, rotations(TURN, 48))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
    if start is not None:
        for p in model.parameters():
            optimizer.state[p]["momentum_buffer"] = torch.full_like(p, 0.0)
        optimizer.state[model[0].weight]["momentum_buffer"] = start.clone()
    found, sizes = [], []
    for _ in range(steps):
        before = model[0].weight.detach().clone()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        buffer = optimizer.state[model[0].weight].get("momentum_buffer")
        update = model[0].weight.grad if buffer is None else buffer
        found.append(float((update * (before @ TURN)).sum()))
        sizes.append(float(update.norm() * before.norm()))
    return np.array(found), np.array(sizes)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}])
def test_full_batch_descent_keeps_the_momentum_zero(options):
    """From an empty buffer ⟨b_k, W_k A⟩ ← β⟨b_k, W_k A⟩ says zero, with weight decay or without."""
    found, sizes = momenta(**options)
    assert (np.abs(found) < 1e-12 * sizes).all()


def test_a_buffer_that_turns_loses_its_momentum_at_the_rate_of_the_buffer():
    start = 0.1 * torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, _ = momenta(start=start, momentum=0.9)
    assert abs(found[0]) > 0.01
    np.testing.assert_allclose(found, found[0] * 0.9 ** np.arange(30), rtol=0, atol=1e-13 * abs(found[0]))


def test_nesterovs_momentum_breaks_it():
    """The update looks ahead: ⟨b, uA⟩ is not zero."""
    found, sizes = momenta(momentum=0.9, nesterov=True)
    assert np.abs(found / sizes).max() > 1e-5


@pytest.mark.parametrize(("activation", "exact_from"), [(nn.Identity, 3), ("square", 5)])
def test_harmonics_of_a_polynomial_end(activation, exact_from):
    """The mean squared error of a net of degree d has harmonics up to 2d: more rotations than that leave none."""

    class Square(nn.Module):
        def forward(self, h):
            return h**2

    model, x, _ = planar(Square if activation == "square" else activation)
    y = torch.randn(len(x), 3, dtype=torch.float64)
    for count in range(1, 9):
        found, size = angular_momentum(model, "0.weight", *orbit(x, y, rotations(TURN, count)), TURN, "mse")
        assert (abs(found) < 1e-14 * size) == (count >= exact_from), (count, found / size)


def test_a_wrong_weight_or_generator_is_named():
    model, x, y = planar(nn.Tanh)
    with pytest.raises(UserError, match=r"weight=1\.weight"):
        angular_momentum(model, "1.weight", x, y, TURN)
    with pytest.raises(UserError, match=r"\(3, 3\) does not act on the 2 features"):
        angular_momentum(model, "0.weight", x, y, torch.eye(3))
