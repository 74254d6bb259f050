"""Training loops as users write them, with what tests do to them in between."""

import contextlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import neuralmech
from neuralmech.record import open_record

STEPS = 40


def net(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    layers = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)
    return nn.Sequential(*layers).to(dtype)


def data(dtype=torch.float64, samples=96):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 6, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(4, (samples,), generator=generator)


def batches(steps=STEPS, dtype=torch.float64, size=16):
    x, y = data(dtype)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        chosen = torch.randint(len(x), (size,), generator=generator)
        yield x[chosen], y[chosen]


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, **options})


def train(
    model, optimizer, folder=None, *, steps=STEPS, each=None, dtype=torch.float64, loss=F.cross_entropy, **options
):
    """The plainest loop, tracked where there is a folder; `each` is called before the steps with their number."""
    optimizers = optimizer if isinstance(optimizer, list) else [optimizer]
    tracking = neuralmech.attach(model, optimizer, folder, **options) if folder else contextlib.nullcontext()
    with tracking:
        for k, (x, y) in enumerate(batches(steps, dtype)):
            if each:
                each(k)
            for one in optimizers:
                one.zero_grad()
            value = F.cross_entropy(model(x), y)
            value.backward()
            for one in optimizers:
                one.step()
            if folder:
                tracking.log(loss=value)
    return tracking


def law_errors(folder, law="discrete_broken"):
    """Family and site → relative error of a law, where it is not a dash.

    By default of the law that knows how far an eps, of BatchNorm for one, breaks a symmetry.
    """
    table = neuralmech.analyze(folder).comparison
    mine = table[(table["law"] == law) & np.isfinite(table["error"])]
    return dict(zip(zip(mine["family"], mine["site"], strict=True), mine["error"], strict=True))


def closures(folder):
    """Family and site → what the account of all that moved the charges leaves."""
    table = neuralmech.analyze(folder).budget
    return dict(zip(zip(table["family"], table["site"], strict=True), table["closure"], strict=True))


def values(folder, family):
    with open_record(folder) as record:
        return record.charges(family).value[:]


def steps_of(folder):
    with open_record(folder) as record:
        return record.steps()


def rows_of(folder):
    """(family, signal) → all that is recorded of the charges."""
    with open_record(folder) as record:
        read = {f: record.charges(f) for f in record.families}
        return {(f, s): getattr(of, s)[:] for f, of in read.items() for s in of.signals}


def same_parameters(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
