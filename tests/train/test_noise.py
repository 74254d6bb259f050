"""Half-batch gradients predict the mean drive at other batch sizes, and so do all batches of an epoch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import config
from neuralmech.record import open_record
from neuralmech.symmetry.discover import find_symmetries
from neuralmech.train import loop
from neuralmech.train.flat import FlatParameters
from neuralmech.train.noise import Gradients


def loss(model, x, y):
    return F.cross_entropy(model(x), y)


def in_order(flat, model):
    """Where the parameters lie, in the order of the generators' columns."""
    return np.concatenate([flat.layout.offsets[n] + np.arange(p.numel()) for n, p in model.named_parameters()])


def test_mean_and_noise_at_one_batch_size_predict_the_mean_drive_at_others():
    """E[gᵀSg] at B = 8 and 128 out of N = 300, without replacement, from halves at S = 32: within sampling error."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    x, y = torch.randn(300, 6).double(), torch.randint(4, (300,))
    flat = FlatParameters(model)
    found = find_symmetries(model, x[:2])
    place = in_order(flat, model)
    form = found.generators()["rescale"]
    halves, draws = Gradients(model, flat, loss).halves, 1500

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
    first, second = Gradients(model, flat, loss).halves(x, y)
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


@pytest.mark.parametrize("charges", ["all", "site"])
def test_the_whole_set_gives_the_mean_drive_of_its_batches(run, charges):
    """Exactly: M + T/S is the mean over the epoch's batches, M + T/N the drive of their mean gradient."""
    options = {"train": {"precision": "fp64"}, "track": {"noise": 5, "noise_from": "set", "charges": charges}}
    at = loop.begin(config(**options))
    size, batches = 8, [at.batches(k) for k in range(at.batches.per_epoch)]
    place = in_order(at.flat, at.setup.model)
    gradients = np.stack([g.numpy()[place] for g in Gradients(at.setup.model, at.flat, at.loss).each(batches)])
    form = at.setup.symmetries.generators()["rescale"]
    with open_record(run(**options)) as r:
        recorded = r.charges("rescale")
        mean, noise = recorded.gradient_mean[:], recorded.gradient_noise[:]
        sites = at.setup.symmetries.families["rescale"].sites
    drives = {size: (form @ (gradients**2).T).mean(axis=1), size * len(batches): form @ gradients.mean(axis=0) ** 2}
    for batch, drive in drives.items():
        if charges == "site":
            drive = [sum(d for d, s in zip(drive, sites, strict=True) if s == site) for site in dict.fromkeys(sites)]
        np.testing.assert_allclose(mean[0] + noise[0] / batch, drive, rtol=1e-9, atol=1e-14)
    assert np.array_equal(mean[4], mean[0])  # held in between
    assert not np.array_equal(mean[5], mean[0])


def test_the_noise_of_the_whole_set_is_that_of_its_samples():
    """Over many epochs at the same parameters: tr(SΣ)·N/(N−1), from the gradients of single samples."""
    at = loop.begin(config(train={"precision": "fp64"}, track={"noise": 1, "noise_from": "set", "parameters": 0}))
    measure, theta = Gradients(at.setup.model, at.flat, at.loss), at.flat.theta.detach()
    place = in_order(at.flat, at.setup.model)
    form, per_epoch, found = at.setup.symmetries.generators()["rescale"], at.batches.per_epoch, []
    columns = next(iter(at.tracker.layouts())) == "rescale"
    assert columns  # the first family: its columns come first
    for epoch in range(300):
        batches = map(at.batches, range(epoch * per_epoch, (epoch + 1) * per_epoch))
        at.tracker.expect(theta, measure.each(batches), 8)
        found.append(at.tracker.noise[1][: form.shape[0]].numpy())
    data = at.setup.data
    samples = [(x[None], y[None]) for x, y in zip(data.train.x, data.train.y, strict=True)]
    single = np.stack([g.numpy()[place] for g in measure.each(samples)])
    expected = form @ single.var(axis=0, ddof=1)
    spread = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - expected) < 5 * spread).all()
    assert (spread < 0.1 * np.abs(expected).max()).all()


def test_a_run_that_measures_over_the_whole_set_trains_as_without(run):
    with open_record(run()) as a, open_record(run(track={"noise": 7, "noise_from": "set"})) as b:
        assert np.array_equal(a.charges("rescale").value[:], b.charges("rescale").value[:])
