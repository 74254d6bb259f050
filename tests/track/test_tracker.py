"""Charges and signals against plain autograd and dense generators on the full parameter vector."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets import Residual, ResidualConv, grouped
from neuralmech.charges.step import Kept
from neuralmech.discovery.discover import find_symmetries
from neuralmech.record import RecordWriter, open_record
from neuralmech.track import Tracker, Tracking
from neuralmech.training.flat import FlatParameters

NETS = {
    "residual": (Residual, (8, 4)),
    "residual_conv": (ResidualConv, (6, 2, 4, 4)),
    "grouped": (grouped, (6, 2, 4, 4)),
}
SGD = [{}, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}, {"momentum": 0.8, "nesterov": True}]


def vector(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors]).double().numpy()


def expected(generator, translation, theta, update, gradient, buffer):
    """Signals of one family from the definitions, with dense float64 vectors in model order."""
    if translation:
        return [generator @ theta, generator @ update, generator @ gradient, generator @ gradient, generator @ buffer]
    pairs = [(theta, theta), (update, update), (gradient, gradient), (theta, gradient), (update, buffer)]
    return [generator @ (a * b) for a, b in pairs]


@pytest.mark.parametrize("options", SGD, ids=["plain", "momentum", "nesterov"])
@pytest.mark.parametrize("name", NETS)
def test_signals_are_the_definitions(name, options, tmp_path):
    build, shape = NETS[name]
    torch.manual_seed(1)
    model = build().train()
    twin = copy.deepcopy(model)  # a plain PyTorch loop, parameter by parameter
    found = find_symmetries(model, torch.randn(shape))
    flat = FlatParameters(model)
    ours = torch.optim.SGD([flat.theta], lr=0.1, fused=True, **options)
    plain = torch.optim.SGD(twin.parameters(), lr=0.1, **options)
    extra = ("drive_buffer",) if options.get("nesterov") else ()
    tracker = Tracker(found, flat.layout, flat.theta, Tracking(extra=extra, block=4))
    row = {"time": 0.0, "lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0}
    row |= {"nesterov": False, "decoupled": False, "batch_size": 8}
    wanted = {n: [] for n in found.families}
    for step in range(4):
        x, y = torch.randn(shape), torch.randint(3, (shape[0],))
        flat.grad.zero_()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        # The twin starts each step from the same numbers: rounding in two optimisers must not add up.
        with torch.no_grad():
            for p, q in zip(twin.parameters(), model.parameters(), strict=True):
                p.copy_(q)
        gradient = torch.autograd.grad(F.cross_entropy(twin(x), y), list(twin.parameters()))
        theta = vector(twin.parameters())
        tracker.before(flat.theta)
        ours.step()
        buffer = ours.state[flat.theta].get("momentum_buffer")
        tracker.after(tracker.step(flat.theta, flat.grad, 10.0, Kept(buffer)), loss, {**row, "step": step})
        for p, g in zip(twin.parameters(), gradient, strict=True):
            p.grad = g
        plain.step()
        update = (theta - vector(model.parameters())) / 0.1
        momenta = [plain.state[p].get("momentum_buffer") for p in twin.parameters()]
        velocity = vector(momenta) if momenta[0] is not None else np.zeros_like(theta)
        for family, generator in found.generators().items():
            translation = found.families[family].is_translation
            wanted[family].append(expected(generator, translation, theta, update, vector(gradient), velocity))
    with RecordWriter(tmp_path, {}, tracker.layouts()) as record:
        tracker.write(record)
    with open_record(tmp_path) as record:
        for family, rows in wanted.items():
            charges = record.charges(family)
            for i, signal in enumerate(tracker.signals):
                truth = np.array([r[i] for r in rows])
                scale = np.abs(generator_scale(found.generators()[family], truth)).max() or 1.0
                # the buffers of the two optimisers differ by float32 rounding, everything else is float64
                tolerance = 1e-5 if signal == "drive_buffer" else 1e-12
                np.testing.assert_allclose(getattr(charges, signal)[:], truth, rtol=tolerance, atol=tolerance * scale)


def generator_scale(generator, truth):
    return np.maximum(np.abs(truth), 1.0 if generator.shape[0] else 0.0)


def test_value_is_conserved_along_the_gradient():
    """d/dε q(θ − εg) = 0: autograd along the flow, at random parameters, for every diagonal charge."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    found = find_symmetries(model, torch.randn(2, 4).double())
    loss = F.cross_entropy(model(torch.randn(16, 4).double()), torch.randint(3, (16,)))
    gradient = vector(torch.autograd.grad(loss, list(model.parameters())))
    theta = vector(model.parameters())
    generators = found.generators()
    assert np.abs(generators["translation"] @ gradient).max() < 1e-15
    assert np.abs(2 * (generators["rescale"] @ (theta * gradient))).max() < 1e-15
