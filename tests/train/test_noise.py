"""Half-batch gradients predict the mean drive at other batch sizes."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuralmech.record import open_record
from neuralmech.symmetry.discover import find_symmetries
from neuralmech.train.flat import FlatParameters
from neuralmech.train.noise import HalfGradients


def loss(model, x, y):
    return F.cross_entropy(model(x), y)


def test_mean_and_noise_at_one_batch_size_predict_the_mean_drive_at_others():
    """E[gᵀSg] at B = 8 and 128 out of N = 300, without replacement, from halves at S = 32: within sampling error."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    x, y = torch.randn(300, 6).double(), torch.randint(4, (300,))
    flat = FlatParameters(model)
    found = find_symmetries(model, x[:2])
    place = np.concatenate([flat.layout.offsets[n] + np.arange(p.numel()) for n, p in model.named_parameters()])
    form = found.generators()["rescale"]
    halves, draws = HalfGradients(model, flat, loss), 1500

    def samples(size, of):
        return np.array([of(torch.randperm(300)[:size]) for _ in range(draws)])

    def predictive(chosen):
        a, b = (g.numpy()[place] for g in halves(x[chosen], y[chosen]))
        return form @ (a * b), 32 * (form @ ((a - b) ** 2)) / 4

    def drive(chosen):
        flat.grad.zero_()
        loss(model, x[chosen], y[chosen]).backward()
        return form @ (flat.grad.numpy()[place] ** 2)

    mean, noise = samples(32, predictive).transpose(1, 0, 2)
    for size in (8, 128):
        measured, predicted = samples(size, drive), mean + noise / size
        spread = np.sqrt((measured.var(axis=0) + predicted.var(axis=0)) / draws)
        off = np.abs(predicted.mean(axis=0) - measured.mean(axis=0))
        assert (off < 4 * spread).all()
        assert (spread < 0.1 * np.abs(measured.mean(axis=0)).max()).all()  # the test can tell


def test_measuring_changes_nothing():
    """Running statistics, random numbers and gradients are as they were."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 4))
    flat = FlatParameters(model)
    x, y = torch.randn(16, 6), torch.randint(4, (16,))
    loss(model, x, y).backward()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradient, state = flat.grad.clone(), torch.get_rng_state()
    first, second = HalfGradients(model, flat, loss)(x, y)
    assert not torch.equal(first, second)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(flat.grad, gradient)
    assert torch.equal(torch.get_rng_state(), state)


def test_halves_average_to_the_batch(run):
    """Without BatchNorm ½(g_A + g_B) = g: the recorded signals add up to the drive of the gradient."""
    folder = run(track={"noise": 3}, train={"precision": "fp64"})
    with open_record(folder) as r:
        charges = r.charges("rescale")
        drive = charges.gradient_mean[:] + charges.gradient_noise[:] / r.steps()["batch_size"][:, None]
        np.testing.assert_allclose(drive[::3], charges.drive_gradient[::3], rtol=1e-9, atol=1e-12)
        assert np.array_equal(charges.gradient_mean[1], charges.gradient_mean[0])  # held in between
        assert "gradient_mean" not in r.charges("translation").signals
