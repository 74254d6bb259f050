"""Attached to a loop: the same parameters to the last bit, charges by their definition, laws that are exact."""

import copy
import functools
import json
import subprocess
import sys
import types
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import neuralmech
from interpreters import Forked
from neuralmech.errors import UserError
from neuralmech.record import open_record
from neuralmech.symmetry.family import generator_matrix
from neuralmech.track import Tracker
from own_loops import STEPS, batches, closures, data, law_errors, net, rows_of, same_parameters, sgd, steps_of, train

EXACT = 1e-12  # of float64: some thousand roundings of 10⁻¹⁶


def adamw(model, **options):
    return torch.optim.AdamW(model.parameters(), **{"lr": 1e-3, "weight_decay": 0.1, **options})


def groups(model, kind=torch.optim.SGD, **options):
    """Three groups: a learning rate, weight decay and, under SGD, a momentum of their own."""
    own = {"momentum": 0.5} if kind is torch.optim.SGD else {}
    first, second = list(model[0].parameters()), [*model[1].parameters(), *model[3].parameters()]
    rest = list(model[5].parameters())
    of = [
        {"params": first, "weight_decay": 0.0},
        {"params": second, "lr": 0.02},
        {"params": rest, "lr": 0.1, "weight_decay": 0.03, **own},
    ]
    return kind(of, **{"lr": 0.05, "weight_decay": 0.01, **options})


RULES = {
    "sgd": sgd,
    "nesterov": lambda m: sgd(m, nesterov=True),
    "plain": lambda m: sgd(m, momentum=0.0),
    "dampened": lambda m: sgd(m, dampening=0.3),
    "one by one": lambda m: sgd(m, foreach=False),
    "fused": lambda m: sgd(m, fused=True),
    "groups": lambda m: groups(m, momentum=0.9),
    "adamw": adamw,
    "adam": lambda m: torch.optim.Adam(m.parameters(), 1e-3, weight_decay=0.1),
    "amsgrad": lambda m: adamw(m, amsgrad=True, fused=True),
    "groups of adamw": lambda m: groups(m, torch.optim.AdamW, lr=1e-3),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), 1e-3),
    "lbfgs's cousin": lambda m: torch.optim.Adagrad(m.parameters(), 1e-2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("rule", RULES)
def test_the_parameters_are_those_of_the_loop_alone(tmp_path, rule, dtype):
    alone, tracked = net(dtype), net(dtype)
    train(alone, RULES[rule](alone), dtype=dtype)
    train(tracked, RULES[rule](tracked), tmp_path / "run", dtype=dtype)
    assert same_parameters(alone, tracked)


def test_rows_are_the_definition(tmp_path):
    model, seen = net(), []
    optimizer = sgd(model, nesterov=True)
    train(
        model,
        optimizer,
        tmp_path,
        each=lambda k: seen.append(nn.utils.parameters_to_vector(model.parameters()).detach()),
    )
    theta = torch.stack([*seen, nn.utils.parameters_to_vector(model.parameters()).detach()]).numpy()
    update = (theta[:-1] - theta[1:]) / 0.05
    found = neuralmech.find_symmetries(model, data()[0][:4])
    with open_record(tmp_path) as record:
        assert record.rows == STEPS
        for name, family in found.families.items():
            matrix, charges = generator_matrix(family, found.shapes), record.charges(name)
            for signal, vectors in (("value", theta[:-1]), ("drive_update", update)):
                truth = (matrix @ (vectors if family.is_translation else vectors**2).T).T
                np.testing.assert_allclose(getattr(charges, signal)[:], truth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", ["sgd", "fused", "adamw", "amsgrad", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_read_where_they_are_or_from_copies_rows_are_the_same(tmp_path, monkeypatch, rule, dtype):
    """Of the one pass over the tensors where the loop has them, and of flat copies."""
    found, in_place, advance = [], [], Tracker.advance
    monkeypatch.setattr(Tracker, "advance", lambda *a, **k: (in_place.append(1), advance(*a, **k)))
    for way in ("in place", "copied"):
        if way == "copied":
            assert len(in_place) >= STEPS - 4  # the first rows, and some others of Adam, need whole vectors
            in_place.clear()
            monkeypatch.setattr("neuralmech.attachment.measuring.LEAVE_GRADIENTS", ())
        model = net(dtype)
        train(model, RULES[rule](model), tmp_path / way, dtype=dtype)
        found.append(rows_of(tmp_path / way))
    assert not in_place
    for name, of_copies in found[1].items():
        scale = np.abs(of_copies).max(initial=0.0)
        near = 1e-13 if dtype == torch.float64 or not name[1].startswith(("metric", "rule")) else 1e-6  # w is rounded
        np.testing.assert_allclose(found[0][name], of_copies, rtol=0, atol=near * scale, err_msg=str(name))


@pytest.mark.parametrize("rule", ["sgd", "adamw", "rmsprop"])
def test_gradients_that_a_loop_lets_go_of_are_gone(tmp_path, rule):
    """Held until the next step they would take as much memory as the parameters once more."""
    model = net()
    optimizer, (x, y) = RULES[rule](model), data()
    with neuralmech.attach(model, optimizer, tmp_path / "run", (x[:4],)):
        for _ in range(4):
            F.cross_entropy(model(x), y).backward()
            held = [weakref.ref(p.grad) for p in model.parameters()]
            optimizer.step()
            optimizer.zero_grad()
            assert not any(ref() is not None for ref in held)


def test_a_hook_that_clears_gradients_costs_a_row(tmp_path):
    """It was there before tracking, so that they are gone when the step is over; then they are copied."""
    model = net()
    optimizer = sgd(model)
    optimizer.register_step_post_hook(lambda o, *_: o.zero_grad(set_to_none=False))
    train(model, optimizer, tmp_path)
    steps = steps_of(tmp_path)
    assert steps["step"].tolist() == list(range(1, STEPS))
    assert max(law_errors(tmp_path).values()) < EXACT


@pytest.mark.parametrize("rule", ["sgd", "plain", "nesterov", "dampened", "groups", "one by one"])
def test_the_discrete_law_is_exact(tmp_path, rule):
    model = net()
    train(model, RULES[rule](model), tmp_path)
    errors, without = law_errors(tmp_path), law_errors(tmp_path, "discrete")
    mixed = {"rescale"} if rule == "groups" else set()  # of two groups with weight decay or momentum of their own
    assert {family for family, _ in errors} >= {"translation", "scale", "rescale"} - mixed
    assert max(errors.values()) < EXACT
    assert max(error for (family, _), error in without.items() if family != "scale") < EXACT  # but for BatchNorm's eps


@pytest.mark.parametrize("rule", ["adamw", "adam", "amsgrad", "groups of adamw", "rmsprop", "lbfgs's cousin"])
def test_the_account_closes_of_any_rule(tmp_path, rule):
    model = net()
    train(model, RULES[rule](model), tmp_path)
    found = closures(tmp_path)
    assert {family.removesuffix("_metric") for family, _ in found} == {"translation", "scale", "rescale"}
    assert max(found.values()) < EXACT
    if "adam" in rule or "amsgrad" in rule:
        errors = law_errors(tmp_path, "moving_metric")
        assert errors
        assert max(errors.values()) < EXACT


def test_schedules_are_followed(tmp_path):
    model = net()
    optimizer = groups(model, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, k / 10) * 0.98**k)
    train(model, optimizer, tmp_path, each=lambda k: schedule.step() if k else None)
    rates = steps_of(tmp_path)["lr"]
    assert rates[0] == 0
    np.testing.assert_allclose(rates[1:], [0.1 * min(1.0, k / 10) * 0.98**k for k in range(1, STEPS)])
    assert max(law_errors(tmp_path).values()) < EXACT
    assert not (tmp_path / "part-2").exists()


@pytest.mark.parametrize("kind", ["tensor", "list"])
def test_options_that_change_in_place_are_read_anew(tmp_path, kind):
    """A learning rate that is a tensor, and moments' rates in a list: the group holds the same object all along."""
    model = net()
    if kind == "tensor":
        optimizer = torch.optim.SGD(
            model.parameters(), torch.tensor(0.1, dtype=torch.float64), momentum=0.9, foreach=False
        )
        changed, column, start, law = optimizer.param_groups[0]["lr"].mul_, "lr", 0.1, "discrete_broken"
    else:
        optimizer = adamw(model)
        betas = optimizer.param_groups[0]["betas"] = [0.9, 0.999]

        def changed(factor):
            betas[0] *= factor

        column, start, law = "momentum", 0.9, "moving_metric"
    train(model, optimizer, tmp_path, each=lambda k: changed(0.98))
    recorded = np.concatenate(
        [steps_of(part)[column] for part in sorted({p.parent for p in tmp_path.rglob("record.h5")})]
    )
    np.testing.assert_allclose(recorded, [start * 0.98 ** (k + 1) for k in range(STEPS)], rtol=1e-6)
    assert max(law_errors(tmp_path, law).values()) < EXACT


def test_several_optimizers(tmp_path):
    def both(model):
        body, head = [p for layer in model[:5] for p in layer.parameters()], model[5].parameters()
        return [torch.optim.SGD(body, 0.05, momentum=0.9), torch.optim.SGD(head, 0.01, momentum=0.9)]

    alone, tracked = net(), net()
    train(alone, both(alone))
    train(tracked, both(tracked), tmp_path)
    assert same_parameters(alone, tracked)
    assert len(steps_of(tmp_path)["step"]) == STEPS
    assert max(law_errors(tmp_path).values()) < EXACT


def test_a_momentum_that_no_law_reads_may_change(tmp_path):
    model = net()
    rules = [torch.optim.RMSprop(model[:5].parameters(), momentum=0.9), torch.optim.AdamW(model[5].parameters())]
    cycles = [torch.optim.lr_scheduler.OneCycleLR(rule, 0.01, total_steps=STEPS) for rule in rules]
    train(model, rules, tmp_path, each=lambda k: [cycle.step() for cycle in cycles] if k else None)
    assert len(steps_of(tmp_path)["step"]) == STEPS
    assert max(closures(tmp_path).values()) < EXACT


def test_an_optimizer_that_steps_more_often(tmp_path):
    model = net()
    often, seldom = torch.optim.SGD(model[:5].parameters(), 0.05), torch.optim.SGD(model[5].parameters(), 0.05)
    with neuralmech.attach(model, [often, seldom], tmp_path, data()[0]):
        for k, (x, y) in enumerate(batches()):
            F.cross_entropy(model(x), y).backward()
            often.step()
            if k % 3 == 2:
                seldom.step()
            model.zero_grad()
    assert len(steps_of(tmp_path)["step"]) == STEPS
    inner = {site: error for (_, site), error in law_errors(tmp_path).items() if "5" not in site}
    assert inner
    assert max(inner.values()) < EXACT


@pytest.mark.parametrize(("cut", "most"), [(nn.utils.clip_grad_norm_, 0.1), (nn.utils.clip_grad_value_, 0.01)])
def test_accumulated_and_clipped_gradients_are_those_applied(tmp_path, cut, most):
    model = net()
    optimizer = sgd(model)
    with neuralmech.attach(model, optimizer, tmp_path, verify=False) as tracking:
        losses = []
        for k, (x, y) in enumerate(batches(3 * STEPS)):
            loss = F.cross_entropy(model(x), y) / 3
            loss.backward()
            tracking.log(loss=loss)
            losses.append(loss.item())
            if k % 3 == 2:
                cut(model.parameters(), most)
                optimizer.step()
                optimizer.zero_grad()
    steps = steps_of(tmp_path)
    assert steps["batch_size"].tolist() == [48] * STEPS
    np.testing.assert_allclose(steps["loss"], np.reshape(losses, (STEPS, 3)).mean(1), rtol=1e-14)
    assert max(law_errors(tmp_path).values()) < EXACT


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scalers_skip_steps(tmp_path, fused):
    model = net(torch.float32)
    optimizer = sgd(model, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=5)
    with neuralmech.attach(model, optimizer, tmp_path, data(torch.float32)[0]):
        for k, (x, y) in enumerate(batches(dtype=torch.float32)):
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            if k in (7, 8, 20):
                model[0].weight.grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
    steps = steps_of(tmp_path)
    assert len(steps["step"]) == (STEPS if fused else STEPS - 3)  # the fused optimiser itself leaves them out
    assert steps["skipped"][-1] == (3 if fused else 0)
    errors = law_errors(tmp_path)
    assert len(errors) >= 5
    assert max(errors.values()) < 1e-4  # float32: 40 steps' roundings of θ by 6·10⁻⁸, of charges that nearly cancel


def test_a_scaler_of_several_optimizers(tmp_path):
    """Fused ones unscale for themselves, each its own gradients and in its own way."""
    model = net(torch.float32)
    both = [torch.optim.SGD(m.parameters(), 0.05, momentum=0.9, fused=True) for m in (model[:4], model[4:])]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    with neuralmech.attach(model, both, tmp_path, data(torch.float32)[0]):
        for x, y in batches(dtype=torch.float32):
            model.zero_grad()
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            for optimizer in both:
                scaler.step(optimizer)
            scaler.update()
    errors = law_errors(tmp_path)
    assert ("rescale", "3 -> 5") in errors  # of which each has a part
    assert max(errors.values()) < 1e-4  # as above


def test_closures(tmp_path):
    def run(model, folder=None):
        optimizer, given = sgd(model, nesterov=True), batches()
        tracking = neuralmech.attach(model, optimizer, folder) if folder else None

        def closure():
            x, y = next(given)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        for k in range(STEPS):
            optimizer.step(closure) if k % 2 else optimizer.step(closure=closure)
        if tracking:
            tracking.close()

    alone, tracked = net(), net()
    run(alone)
    run(tracked, tmp_path)
    assert same_parameters(alone, tracked)
    assert steps_of(tmp_path)["step"].tolist() == list(range(STEPS))
    assert steps_of(tmp_path)["batch_size"].tolist() == [16] * STEPS
    assert max(law_errors(tmp_path).values()) < EXACT


def test_what_is_logged(tmp_path):
    model = net()
    optimizer = sgd(model)
    with neuralmech.attach(model, optimizer, tmp_path, data()[0]) as tracking:
        losses = []
        for k, (x, y) in enumerate(batches(300)):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            losses.append(loss.item())
            if k % 2:
                tracking.log(loss=loss)  # between the call and the step
            loss.backward()
            optimizer.step()
            if not k % 2:
                tracking.log(loss=loss, accuracy=torch.tensor(k / 300))
    np.testing.assert_array_equal(steps_of(tmp_path)["loss"], losses)
    lines = [json.loads(line) for line in (tmp_path / "logged.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(0, 300, 2))
    with open_record(tmp_path) as record:
        assert record.logged()["accuracy"].to_numpy() == pytest.approx([k / 300 for k in range(0, 300, 2)])


def test_without_a_loss_all_rows_count(tmp_path):
    model = net()
    optimizer = sgd(model)
    with neuralmech.attach(model, optimizer, tmp_path):
        for x, y in batches():
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert np.isnan(steps_of(tmp_path)["loss"]).all()
    assert max(law_errors(tmp_path).values()) < EXACT


def test_updates_by_hand(tmp_path):
    model = net()
    with neuralmech.attach(model, None, tmp_path, data()[0]) as tracking:
        for x, y in batches():
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            with torch.no_grad(), tracking.step(lr=0.05, weight_decay=0.01):
                for p in model.parameters():
                    p -= 0.05 * (p.grad + 0.01 * p)
    assert len(steps_of(tmp_path)["step"]) == STEPS
    assert max(law_errors(tmp_path).values()) < EXACT


def test_a_rule_by_hand_that_is_not_sgd(tmp_path):
    model = net()
    with neuralmech.attach(model, "sign", tmp_path, data()[0]) as tracking:
        for x, y in batches():
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            with torch.no_grad(), tracking.step(lr=0.001):
                for p in model.parameters():
                    p -= 0.001 * p.grad.sign()
    assert not law_errors(tmp_path)
    assert max(closures(tmp_path).values()) < EXACT


def test_every_third_step(tmp_path):
    model = net()
    train(model, sgd(model, momentum=0.0), tmp_path, every=3, charges="site")
    assert steps_of(tmp_path)["step"].tolist() == list(range(0, STEPS, 3))
    assert max(e for (family, _), e in law_errors(tmp_path).items() if family == "translation") < EXACT


def test_copies_of_the_model_are_not_followed(tmp_path):
    model = net()
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = sgd(model)
    with neuralmech.attach(model, optimizer, tmp_path, data()[0]):
        twin = copy.deepcopy(model)
        torch.save(model, tmp_path / "model.pt")
        for x, y in batches():
            optimizer.zero_grad()
            twin(x), average(x)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            average.update_parameters(model)
    assert steps_of(tmp_path)["batch_size"].tolist() == [16] * STEPS
    assert max(law_errors(tmp_path).values()) < EXACT
    assert same_parameters(torch.load(tmp_path / "model.pt", weights_only=False), twin)


def test_bad_options(tmp_path):
    model = net()
    optimizer = sgd(model)
    for options, message in [
        ({"family": ["scale"]}, "family= is no option"),
        ({"families": ["skale"]}, "families=skale"),
        ({"every": 0}, "every=0"),
        ({"charges": "some"}, "charges=some"),
        ({"signals": ["no"]}, "signals=no"),
        ({"loss": "hinge"}, "loss=hinge"),
        ({"resume": True}, "holds no record"),
        ({"resume": True, "overwrite": True}, "give one of them"),
    ]:
        with pytest.raises(UserError, match=message):
            neuralmech.attach(model, optimizer, tmp_path / "run", data()[0], **options)
    for given, options, message in [
        (torch.randn(4, 7), {}, "a copy of Sequential cannot be called .*mat1 and mat2"),
        (data()[0], {"loss": lambda out: out.no_such_thing}, "no_such_thing.*test_attach"),
        (data()[0], {"loss": lambda out: out}, "one number"),
        (5, {}, "no tensor"),
    ]:
        with pytest.raises(UserError, match=message):
            neuralmech.attach(model, optimizer, tmp_path / "run", given, **options)
    with pytest.raises(UserError, match=r"no torch\.optim\.Optimizer"):
        neuralmech.attach(model, model, tmp_path / "run", data()[0])
    with pytest.raises(UserError, match=r"no torch\.nn\.Module"):
        neuralmech.attach(optimizer, optimizer, tmp_path / "run", data()[0])
    with pytest.raises(UserError, match="trains no parameter of this model"):
        neuralmech.attach(net(), optimizer, tmp_path / "run", data()[0])
    assert not (tmp_path / "run" / "record.h5").exists()


def halved(model, x):
    return 0.5 * nn.Sequential.forward(model, x)


def test_a_forward_that_somebody_put_in_the_place_of_the_models(tmp_path):
    model = net()
    optimizer = sgd(model)
    model.forward = types.MethodType(halved, model)
    train(model, optimizer, tmp_path)
    assert max(law_errors(tmp_path).values()) < EXACT
    assert ("translation", "5.weight") in law_errors(tmp_path)
    model.forward = functools.partial(halved, net())
    with pytest.raises(UserError, match="replaced by a plain function"):
        neuralmech.attach(model, optimizer, tmp_path / "run", data()[0])


class Around(torch.optim.Optimizer):
    """As accelerate's: of the class, but never initialised as one."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.param_groups, self.state, self.defaults = optimizer.param_groups, optimizer.state, optimizer.defaults

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure=None):
        self.optimizer.step(closure)


def test_an_optimizer_around_another(tmp_path):
    model = net()
    train(model, Around(sgd(model)), tmp_path)
    assert len(steps_of(tmp_path)["step"]) == STEPS
    assert max(law_errors(tmp_path).values()) < EXACT


def anew(code, cwd):
    words = [sys.executable, "-c", code]
    return subprocess.Popen(words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("start", "end", "status"), [(anew, "", "complete"), (Forked, "1 / 0", "stopped: ZeroDivisionError")]
)
def test_a_process_that_ends_without_close(tmp_path, start, end, status):
    code = f"""
import neuralmech, torch
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
tracking = neuralmech.attach(model, optimizer, "run")
for _ in range(3):
    model(torch.randn(4, 3)).logsumexp(1).sum().backward()
    optimizer.step()
{end}
"""
    process = start(code, cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode == 0) == (status == "complete"), err
    assert "3 steps recorded" in out
    with open_record(tmp_path / "run") as record:
        assert (record.rows, record.status) == (3, status)
