"""Norms of gradients, parameters and updates, against autograd in a loop that nothing tracks."""

import copy
import math

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import neuralmech
from conftest import config
from neuralmech.errors import UserError
from neuralmech.record import open_record
from neuralmech.record.schema import NORMS_OF
from neuralmech.training.begin import begin
from neuralmech.training.execute import Plain
from neuralmech.training.one_pass import InOnePass
from own_loops import batches, net, same_parameters, sgd, train

LR, STEPS = 0.05, 40
SGD = {"name": "sgd", "lr": LR, "weight_decay": 0.01}
GROUPS = [{"match": "bias", "lr": 2.0}, {"match": "*0.weight", "lr": 0.25}]


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=LR, weight_decay=0.01, fused=True)


def grouped(parameters):
    factor = [2.0 if p.ndim == 1 else 0.25 if k == 0 else 1.0 for k, p in enumerate(parameters)]
    of = [{"params": [p], "lr": LR * r} for p, r in zip(parameters, factor, strict=True)]
    return torch.optim.SGD(of, lr=LR, weight_decay=0.01)


# Options of a run, the way it goes, and the same rule as people write it.
CASES = {
    "sgd": ({"optim": {**SGD, "momentum": 0.9}}, InOnePass, lambda p: torch.optim.SGD(p, LR, 0.9, weight_decay=0.01)),
    "adamw": ({"optim": {**SGD, "name": "adamw"}}, InOnePass, adamw),
    "conv net": (
        {"optim": SGD, "model": {"name": "convnet", "width": 4, "depth": 2}, "data": {"shape": [1, 6, 6]}},
        InOnePass,
        lambda p: torch.optim.SGD(p, LR, weight_decay=0.01),
    ),
    "matrices": (
        {"optim": SGD, "model": {"activation": "none"}, "track": {"full": 3}},
        InOnePass,
        lambda p: torch.optim.SGD(p, LR, weight_decay=0.01),
    ),
    "one family": (
        {"optim": SGD, "track": {"families": ["translation"]}},
        InOnePass,
        lambda p: torch.optim.SGD(p, LR, weight_decay=0.01),
    ),
    "site sums": (
        {"optim": SGD, "track": {"charges": "site"}},
        InOnePass,
        lambda p: torch.optim.SGD(p, LR, weight_decay=0.01),
    ),
    "nesterov": (
        {"optim": {**SGD, "momentum": 0.9, "nesterov": True}},
        Plain,
        lambda p: torch.optim.SGD(p, LR, 0.9, weight_decay=0.01, nesterov=True),
    ),
    "groups": ({"optim": {**SGD, "groups": GROUPS}}, Plain, grouped),
    "another's rule": (
        {"optim": {"name": "_target_", "target": "torch.optim.RMSprop", "lr": LR}},
        Plain,
        lambda p: torch.optim.RMSprop(p, LR),
    ),
}


class Twin:
    """Norms of each parameter, in float64, in a plain loop."""

    def __init__(self, model):
        self.named = dict(model.named_parameters())
        self.found = {of: [] for of in NORMS_OF}

    def step(self, optimizer, lr=LR):
        before = {n: p.detach().double().clone() for n, p in self.named.items()}
        zeros = torch.zeros(())
        gradients = {n: zeros if p.grad is None else p.grad.double().clone() for n, p in self.named.items()}
        optimizer.step()
        updates = {n: (before[n] - p.detach().double()) / lr for n, p in self.named.items()}
        for of, vectors in zip(NORMS_OF, (gradients, before, updates), strict=True):
            self.found[of].append({n: float(v.norm()) for n, v in vectors.items()})

    def assert_recorded(self, folder, rtol=1e-9, atol=1e-12):
        with open_record(folder) as record:
            norms = record.norms()
            assert list(norms.index["name"]) == list(self.named)  # in the model's order
            for of, rows in self.found.items():
                frame, total = norms.to_pandas(of), norms.total(of)
                assert len(frame) == len(rows)
                for name in self.named:
                    mine = [row[name] for row in rows]
                    np.testing.assert_allclose(frame[name], mine, rtol, atol, err_msg=f"{of} {name}")
                wanted = [math.hypot(*row.values()) for row in rows]
                np.testing.assert_allclose(total, wanted, rtol, atol)
            np.testing.assert_allclose(record.column("gradient_norm"), norms.total(), 1e-14)


def twin_of(parts, make, clip=math.inf, dtype=torch.float64):
    begun = begin(config(**parts, track={"norms_of": []}))
    model, batch = begun.setup.model, begun.batches
    for p in model.parameters():
        p.data, p.grad = p.data.clone(), None
    optimizer, twin = make(list(model.parameters())), Twin(model)
    for k in range(STEPS):
        x, y = batch(k)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = model(x)
        F.cross_entropy(logits.double(), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        twin.step(optimizer)
    return twin


@pytest.mark.parametrize(("options", "way", "make"), CASES.values(), ids=CASES)
def test_our_loop(run, options, way, make):
    parts = {"train": {"precision": "fp64"}, **options}
    assert type(begin(config(**parts)).execution) is way
    twin = twin_of({k: v for k, v in parts.items() if k != "track"}, make)
    twin.assert_recorded(run(**parts), rtol=1e-8)


@pytest.mark.parametrize(
    ("precision", "dtype", "rtol"), [("fp32", torch.float32, 2e-4), ("bf16", torch.bfloat16, 0.02)]
)
def test_less_precise_nets(run, precision, dtype, rtol):
    """The gradients are those of nets that round; the norms add no error of their own, but trajectories part."""
    parts = {"optim": SGD, "train": {"precision": precision}}
    twin_of(parts, lambda p: torch.optim.SGD(p, LR, weight_decay=0.01), dtype=dtype).assert_recorded(
        run(**parts), rtol, 1e-3
    )


def test_a_clipped_gradient_is_the_one_that_the_rule_sees(run):
    parts = {"optim": {**SGD, "clip_norm": 0.3}, "train": {"precision": "fp64"}}
    folder = run(**parts)
    twin_of(parts, lambda p: torch.optim.SGD(p, LR, weight_decay=0.01), clip=0.3).assert_recorded(folder, rtol=1e-5)
    with open_record(folder) as record:
        clip, norm = record.column("clip"), record.column("gradient_norm")
        np.testing.assert_allclose(norm[clip < 1], 0.3, rtol=1e-5)


def test_under_sharpness_aware_minimisation_there_are_two_gradients(run):
    with open_record(run(optim={**SGD, "sam_rho": 0.1}, train={"precision": "fp64"})) as record:
        rule, here = record.column("gradient_norm"), record.column("ascent_norm")
        np.testing.assert_allclose(rule, record.norms().total(), 1e-14)
        assert (np.abs(rule / here - 1) > 1e-4).all()
        assert (np.abs(rule / here - 1) < 0.5).all()
        drive = record.norms().gradient[:]
        assert drive.shape == (STEPS, len(record.norms()))


def test_every_third_step_and_only_some(run):
    whole, some = run(), run(track={"every": 3, "norms_of": ["gradient"]})
    with open_record(whole) as full, open_record(some) as record:
        norms = record.norms()
        assert norms.of == ("gradient",)
        assert list(norms.steps) == list(range(0, STEPS, 3))
        np.testing.assert_array_equal(norms.gradient[:], full.norms().gradient[:][::3])
        with pytest.raises(AttributeError, match="no norms of 'update'; there are those of gradient"):
            _ = norms.update
        assert list(norms.index["shape"]) == ["x".join(map(str, p)) for p in _shapes(norms)]
        assert norms.index["entries"].tolist() == [math.prod(shape) for shape in _shapes(norms)]


def _shapes(norms):
    named = dict(begin(config()).setup.model.named_parameters())
    return [tuple(named[name].shape) for name in norms.index["name"]]


def test_none(run):
    with open_record(run(track={"norms_of": []})) as record:
        assert record.norms() is None
        assert np.isnan(record.column("gradient_norm")).all()
    with pytest.raises(UserError, match=r"track\.norms_of"):
        config(track={"norms_of": ["loss"]})


ATTACHED = {
    "in place": sgd,
    "adamw in place": lambda m: torch.optim.AdamW(m.parameters(), LR, fused=True),
    "copied": lambda m: torch.optim.RMSprop(m.parameters(), LR),
    "groups": lambda m: torch.optim.SGD(
        [{"params": list(m[:3].parameters()), "lr": 0.5 * LR}, {"params": list(m[3:].parameters())}], LR
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["fp64", "bf16"])
@pytest.mark.parametrize("make", ATTACHED.values(), ids=ATTACHED)
def test_a_loop_of_ones_own(tmp_path, make, dtype):
    """Of a parameter that the loss does not depend on, the gradient is none; bfloat16 nets are followed in float32."""
    ours = net(dtype)
    ours[0].unused = nn.Parameter(torch.ones(3, dtype=dtype))
    theirs = copy.deepcopy(ours)
    train(ours, make(ours), tmp_path / "run", dtype=dtype, verify=False)
    optimizer, twin = make(theirs), Twin(theirs)
    for x, y in batches(dtype=dtype):
        optimizer.zero_grad()
        F.cross_entropy(theirs(x), y).backward()
        twin.step(optimizer, max(group["lr"] for group in optimizer.param_groups))
    assert same_parameters(ours, theirs)
    twin.assert_recorded(tmp_path / "run", rtol=1e-9 if dtype == torch.float64 else 1e-6, atol=1e-9)


def test_an_older_record_goes_on_as_it_was(tmp_path):
    """Without room for norms, and with the older meaning of a column; only what it has is written."""
    model = net()
    optimizer = sgd(model)
    train(model, optimizer, tmp_path / "run", norms_of=())
    with h5py.File(tmp_path / "run/record.h5", "r+") as file:
        del file["steps/gradient_norm"]
        file["steps"].move("ascent_norm", "gradient_norm")
    train(model, optimizer, tmp_path / "run", resume=True)
    with neuralmech.load(tmp_path / "run") as record:
        assert record.rows == 2 * STEPS
        assert record.norms() is None
        assert np.isnan(record.column("gradient_norm")).all()
        assert not record.column("ascent_norm").any()
