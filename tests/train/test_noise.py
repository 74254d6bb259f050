"""Half-batch gradients predict the mean drive at other batch sizes, and so do all batches of an epoch."""

import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import config
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import RunError, UserError
from neuralmech.record import open_record
from neuralmech.track.expected import expected
from neuralmech.training.begin import begin
from neuralmech.training.flat import FlatParameters
from neuralmech.training.noise import Epoch, Gradients


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
    """What was measured of a batch adds up to the drive of its gradient."""
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
    at = begin(config(**options))
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
    at = begin(config(train={"precision": "fp64"}, track={"noise": 1, "noise_from": "set", "parameters": 0}))
    measure, theta = Gradients(at.setup.model, at.flat, at.loss), at.flat.theta.detach()
    place = in_order(at.flat, at.setup.model)
    form, per_epoch, found = at.setup.symmetries.generators()["rescale"], at.batches.per_epoch, []
    columns = next(iter(at.tracker.layouts())) == "rescale"
    assert columns  # the first family: its columns come first
    for epoch in range(300):
        batches = map(at.batches, range(epoch * per_epoch, (epoch + 1) * per_epoch))
        gradients = Epoch(measure, batches)
        _, noise = expected(lambda g: at.tracker.drive(theta, g), gradients.whole, 8 * per_epoch, gradients, 8)
        found.append(noise[: form.shape[0]].numpy())
    data = at.setup.data
    samples = [(x[None], y[None]) for x, y in zip(data.train.x, data.train.y, strict=True)]
    single = np.stack([g.numpy()[place] for g in measure.each(samples)])
    wanted = form @ single.var(axis=0, ddof=1)
    spread = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - wanted) < 5 * spread).all()
    assert (spread < 0.1 * np.abs(wanted).max()).all()


SIZE = 16


def unequal():
    """Sequences of which one to twelve tokens count, fewer of those that are harder."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(200, 12, 6, generator=source)
    counted = torch.randint(1, 13, (200, 1), generator=source) ** 2 // 12 + 1
    x = x + (12 - counted[:, :, None]) / 4
    y = torch.where(torch.arange(12) < counted, torch.randint(4, (200, 12), generator=source), -100)
    return x, y, x, y


def unequal_net():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def normalised():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) + 1
    y = (x[:, 0] > 1).long() + (x[:, 1] > 1)
    return x, y, x, y


def normalised_net():
    return nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


class Case:
    """A run at its first step, on data and with a net of this file; and its drives by plain PyTorch."""

    def __init__(self, name, monkeypatch):
        monkeypatch.setitem(sys.modules, "noise_data", sys.modules[__name__])
        own = {"name": "_target_", "arguments": {}}
        self.run = begin(
            config(
                data={**own, "target": f"noise_data.{name}", "batch_size": SIZE},
                model={**own, "target": f"noise_data.{name}_net"},
                train={"precision": "fp64"},
                track={"noise": 1, "parameters": 0, "norms_of": []},
            )
        )
        self.model, self.x, self.y = self.run.setup.model, self.run.setup.data.train.x, self.run.setup.data.train.y
        self.family, self.form = next(
            (n, f) for n, f in self.run.setup.symmetries.generators().items() if n != "translation"
        )
        self.place = in_order(self.run.flat, self.model)
        self.gradients = Gradients(self.model, self.run.flat, self.run.loss)

    def gradient(self, chosen):
        out = self.model(self.x[chosen])
        logits = out if out.dim() == 2 else out.transpose(1, 2)
        found = torch.autograd.grad(F.cross_entropy(logits, self.y[chosen]), list(self.model.parameters()))
        return torch.cat([g.reshape(-1) for g in found])

    def drive(self, chosen):
        return self.form @ self.gradient(chosen).numpy() ** 2

    def measured(self, chosen):
        """M and T of a batch, as the run measures them."""
        x, y = self.x[chosen], self.y[chosen]
        self.run.measure_noise(x, y, next(self.gradients.each([(x, y)])))
        columns = self.run.tracker._columns[self.family]
        return np.array([signal[columns].numpy() for signal in self.run.tracker.noise])


# Sizes at which the prediction is exact, and the share by which it may be off where it is not.
@pytest.mark.parametrize(
    ("name", "off"),
    [("unequal", {SIZE: 0, SIZE // 2: 0.1, 4 * SIZE: 0.1}), ("normalised", {SIZE: 0, SIZE // 2: 0, 2 * SIZE: 0.1})],
)
def test_samples_that_weigh_differently_or_are_coupled(name, off, monkeypatch):
    """M + T/S is the mean drive of batches as large as those measured; at other sizes it is near."""
    torch.manual_seed(0)
    case, draws = Case(name, monkeypatch), 800
    mean, noise = np.array([case.measured(torch.randperm(200)[:SIZE]) for _ in range(draws)]).transpose(1, 0, 2)
    for size, share in off.items():
        drives = np.array([case.drive(torch.randperm(200)[:size]) for _ in range(draws)])
        predicted, measured = (mean + noise / size).sum(axis=1), drives.sum(axis=1)  # the site's, which is less noisy
        spread = np.sqrt((predicted.var() + measured.var()) / draws)
        assert abs(predicted.mean() - measured.mean()) < 4 * spread + share * measured.mean()
        assert spread < 0.08 * measured.mean()  # the test can tell


def test_an_epoch_of_unequal_batches_has_the_gradient_of_its_whole(monkeypatch):
    case = Case("unequal", monkeypatch)
    parts = [torch.arange(k, k + 40) for k in range(0, 200, 40)]
    epoch = Epoch(case.gradients, [(case.x[p], case.y[p]) for p in parts])
    found = torch.stack(list(epoch)).numpy()
    np.testing.assert_allclose(epoch.whole().numpy()[case.place], case.gradient(torch.arange(200)).numpy(), rtol=1e-10)
    np.testing.assert_allclose(found[2][case.place], case.gradient(parts[2]).numpy(), rtol=1e-10)


def test_a_half_without_targets_is_no_half(monkeypatch):
    case = Case("unequal", monkeypatch)
    y = torch.where(torch.arange(16)[:, None] < 8, case.y[:16], -100)
    assert case.gradients.halves(case.x[:16], y) is None
    assert case.gradients.halves(case.x[:16], y[torch.arange(16).reshape(2, 8).T.flatten()]) is not None


def few(count=2):
    """Samples of which the first ones alone count."""
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    y = torch.where(torch.arange(64) < count, torch.arange(64) % 2, -100)
    return x, y, x, torch.arange(64) % 2


@pytest.mark.parametrize("count", [1, 30])
def test_a_batch_that_cannot_be_halved_leaves_it_to_the_next(run, monkeypatch, count):
    """The noise is that of the next one that can; where there is none, a run says so in one line."""
    monkeypatch.setitem(sys.modules, "noise_data", sys.modules[__name__])
    data = {"name": "_target_", "target": "noise_data.few", "arguments": {"count": count}, "classes": 2}
    train = {"precision": "fp64", "steps": 8, "on_nan": "continue"}
    options = {"data": {**data, "batch_size": 64 if count == 1 else 4}, "train": train, "track": {"noise": 1}}
    if count == 1:
        with pytest.raises(RunError, match=r"track\.noise: in no batch do both halves have targets that count"):
            run(**options)
        return
    at = begin(config(**options))
    halved = [bool((y[:2] >= 0).any() and (y[2:] >= 0).any()) for y in (at.batches(k)[1] for k in range(8))]
    first = halved.index(False)
    with open_record(run(**options, optim={"lr": 1e-30})) as r:
        charges = r.charges("rescale")
        drives = charges.gradient_mean[:] + charges.gradient_noise[:] / 4
        then = first + halved[first:].index(True)
        np.testing.assert_allclose(drives[first], drives[then], rtol=1e-12)
        np.testing.assert_allclose(drives[then], charges.drive_gradient[then], rtol=1e-9, atol=1e-15)


def test_halves_of_one_sample(run):
    """Work where the model takes one; where it does not, that is said before anything is written."""
    with open_record(run(data={"batch_size": 3}, track={"noise": 1}, train={"precision": "fp64"})) as r:
        charges = r.charges("rescale")
        drive = charges.gradient_mean[:] + charges.gradient_noise[:] / 3
        np.testing.assert_allclose(drive, charges.drive_gradient[:], rtol=1e-9, atol=1e-12)
    options = {"data": {"batch_size": 3}, "track": {"noise": 1}, "model": {"norm": "batch"}}
    with pytest.raises(UserError, match=r"track\.noise=1: half a batch is one sample, .* use data.batch_size=4"):
        begin(config(**options))
    begin(config(**options | {"track": {"noise": 1, "noise_from": "set"}}))


def test_a_run_that_measures_over_the_whole_set_trains_as_without(run):
    with open_record(run()) as a, open_record(run(track={"noise": 7, "noise_from": "set"})) as b:
        assert np.array_equal(a.charges("rescale").value[:], b.charges("rescale").value[:])
