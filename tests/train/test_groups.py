"""Groups of parameters, gradients that are clipped or taken elsewhere, schedules: what they are, and wrong values."""

import math

import pytest
import torch
from torch import nn

from conftest import config
from neuralmech.config import GroupConfig, OwnRuleConfig
from neuralmech.errors import UserError
from neuralmech.schedules import scheduled
from neuralmech.training.begin import begin
from neuralmech.training.groups import assign
from neuralmech.training.loop import take_step
from neuralmech.training.optimizers import decays_apart, polar

NET = {"name": "mlp", "width": 6, "depth": 2, "norm": "batch"}
MODEL = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_a_parameter_is_of_the_first_group_that_it_matches():
    wanted = [GroupConfig("bias", lr=2.0), GroupConfig("norm", weight_decay=0.0), GroupConfig("2.*", lr=3.0)]
    found = assign(MODEL, wanted)
    assert found.of == {"0.weight": 0, "0.bias": 1, "1.weight": 2, "1.bias": 1, "2.weight": 3, "2.bias": 1}
    assert found.ratios == {"0.weight": 1, "0.bias": 2, "1.weight": 1, "1.bias": 2, "2.weight": 3, "2.bias": 2}
    assert found.decays == {"0.weight": 1, "0.bias": 2, "1.weight": 0, "1.bias": 2, "2.weight": 3, "2.bias": 2}
    assert assign(MODEL, [GroupConfig("matrix")]).members(1) == ["0.weight", "2.weight"]
    assert assign(MODEL, []).ratios is assign(MODEL, []).decays is None


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"clip_norm": -1.0}, "optim.clip_norm=-1.0 must be a positive number"),
        ({"clip_value": 0.0}, "optim.clip_value=0.0 must be a positive number"),
        ({"sam_rho": -0.1}, "optim.sam_rho=-0.1 must not be negative"),
        ({"groups": [{"lr": 2.0}]}, r"optim.groups\[0\].match is missing"),
        ({"groups": [{"match": "bias", "lr": 0.0}]}, r"optim.groups\[0\].lr=0.0 must be a positive factor"),
        ({"groups": [{"match": "bias", "weight_decay": -1.0}]}, r"optim.groups\[0\].weight_decay=-1.0"),
        ({"groups": [{"match": "bias", "decay": 1.0}]}, "decay"),
        ({"groups": [{"match": "conv*"}]}, r"optim.groups\[0\].match=conv\* leaves no parameter to it; there are"),
        ({"groups": [{"match": "bias"}, {"match": "*bias"}]}, "all that it matches is in earlier groups"),
        ({"name": "adamw", "nesterov": True, "momentum": 0.9}, "are SGD's"),
        ({"name": "muon", "amsgrad": True}, "optim.amsgrad=true is for adam"),
        ({"name": "muon", "polar": "svd"}, "optim.polar=svd is unknown"),
        ({"schedule": {"name": "milestones"}}, "goes with"),
        ({"schedule": {"name": "milestones", "milestones": [5, 3]}}, "ascending order"),
        ({"name": "_target_", "target": "torch.optim.LBFGS"}, "needs a closure, and a step has one gradient"),
        ({"name": "_target_", "target": "torch.optim.LBFGS", "sam_rho": 0.1}, "needs a closure, and optim.sam_rho"),
        ({"name": "_target_", "target": "torch.optim.Nope"}, "names nothing that can be called"),
        ({"name": "_target_", "target": "torch.optim.RMSprop", "arguments": {"beta": 1}}, "unexpected keyword"),
        (
            {"name": "_target_", "target": "torch.nn.Linear", "arguments": {"out_features": 2}},
            "_target_=torch.nn.Linear",
        ),
        ({"name": "_target_", "target": "torch.optim.Rprop", "weight_decay": 0.1}, "takes none; use 0"),
    ],
)
def test_a_wrong_value_is_one_line(optim, message):
    with pytest.raises(UserError, match=message) as caught:
        begin(config(model=NET, optim=optim if "name" in optim else {"lr": 0.1, **optim}))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "torchs"),
    [
        ({"name": "milestones", "milestones": [3, 7], "gamma": 0.2},
         lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7], 0.2)),
        ({"name": "step", "step_size": 4, "gamma": 0.5}, lambda o: torch.optim.lr_scheduler.StepLR(o, 4, 0.5)),
    ],
    ids=["milestones", "step"],
)  # fmt: skip
def test_schedules_are_pytorchs(options, torchs):
    made = config(optim={"lr": 0.3, "schedule": options}).optim
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.3)
    scheduler = torchs(optimizer)
    for step in range(12):
        assert scheduled(0.3, made.schedule, step, 12) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_one_cycle_rises_to_lr_and_falls_to_almost_nothing():
    """At its corners PyTorch's, which counts one step less between them."""
    o = config(optim={"lr": 0.3, "schedule": {"name": "one_cycle", "peak": 0.4}}).optim.schedule
    lr = [scheduled(0.3, o, step, 1000) for step in range(1000)]
    assert lr[0] == pytest.approx(0.3 / 25)
    assert max(lr) == lr[400] == pytest.approx(0.3)
    assert lr[200] == pytest.approx((0.3 + 0.3 / 25) / 2)
    assert lr[700] == pytest.approx(0.15, rel=1e-4)
    assert lr[-1] == pytest.approx(0.3 / 25 / 1e4, abs=3e-6)  # a step before the end


def test_clipping_is_pytorchs(tmp_path):
    """A step with clipping, and one of a twin whose gradients PyTorch's functions clipped."""
    for own, theirs in (
        ({"clip_norm": 0.1}, lambda p: nn.utils.clip_grad_norm_(p, 0.1)),
        ({"clip_value": 0.01}, lambda p: nn.utils.clip_grad_value_(p, 0.01)),
    ):
        run, twin = (begin(config(model=NET, optim={"lr": 0.1, **of})) for of in (own, {}))
        x, y = run.batches(0)
        take_step(run, x, y)
        loss = twin.loss(twin.setup.model, x, y)
        loss.backward()
        theirs(twin.flat.parameters)
        with torch.no_grad():
            for p in twin.flat.parameters:
                p -= 0.1 * p.grad
        torch.testing.assert_close(run.flat.theta, twin.flat.theta, rtol=1e-5, atol=1e-8)
        for each in (run, twin):
            each.batches.close()


def test_sam_steps_along_the_gradient_up_there():
    run, twin = (
        begin(config(model=NET, optim={"lr": 0.1, "sam_rho": rho}, train={"precision": "fp64"})) for rho in (0.2, 0)
    )
    x, y = run.batches(0)
    take_step(run, x, y)
    model, theta = twin.setup.model, [p.detach().clone() for p in twin.flat.parameters]
    first = torch.autograd.grad(twin.loss(model, x, y), twin.flat.parameters)
    statistics = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    norm = math.sqrt(sum(float((g**2).sum()) for g in first))
    with torch.no_grad():
        for p, g in zip(twin.flat.parameters, first, strict=True):
            p += 0.2 * g / norm
    second = torch.autograd.grad(twin.loss(model, x, y), twin.flat.parameters)
    with torch.no_grad():
        for p, at, g in zip(twin.flat.parameters, theta, second, strict=True):
            p.copy_(at - 0.1 * g)
    torch.testing.assert_close(run.flat.theta, twin.flat.theta, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(run.setup.model.state_dict()[k], v) for k, v in statistics.items())  # of the pass at θ alone
    for each in (run, twin):
        each.batches.close()


def test_the_polar_factor_of_less_than_full_rank():
    """Orthogonal on the space that the matrix has, zero beside it."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 2, dtype=torch.float64, generator=generator) for n in (5, 4))
    found = polar(a @ b.T)
    assert torch.linalg.svdvals(found).tolist() == pytest.approx([1, 1, 0, 0], abs=1e-12)
    torch.testing.assert_close(found @ found.T @ a, a)
    assert not polar(torch.zeros(3, 2)).any()


@pytest.mark.parametrize(
    ("target", "arguments", "apart"),
    [
        ("torch.optim.AdamW", {}, True),
        ("torch.optim.SGD", {"momentum": 0.9}, False),
        ("torch.optim.NAdam", {}, False),
        ("torch.optim.NAdam", {"decoupled_weight_decay": True}, True),
        ("pytorch_optimizer.Lion", {}, True),
        ("pytorch_optimizer.Lion", {"weight_decouple": False}, False),
        ("pytorch_optimizer.SOAP", {}, True),  # after its step, and not in its first, which only prepares it
    ],
)
def test_whether_weight_decay_is_decoupled_is_found(target, arguments, apart):
    assert decays_apart(OwnRuleConfig(target=target, lr=0.01, weight_decay=0.1, arguments=arguments)) == apart
