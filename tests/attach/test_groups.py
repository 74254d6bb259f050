"""Groups of an optimiser whose schedules are their own: rows by their definition, laws that are exact, no end of it."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import neuralmech
from neuralmech.record import open_record
from neuralmech.symmetry.family import generator_matrix
from own_loops import STEPS, closures, data, law_errors, net, sgd, steps_of, train

EXACT = 1e-12  # of float64: some thousand roundings of 10⁻¹⁶
ACROSS = ("rescale", "1 -> 3")  # the one site with a part in each group


def two(model, kind=torch.optim.SGD, **options):
    """The first layer with its norm, and the rest, which learns and decays at other rates."""
    rest = {"params": model[3:].parameters(), "lr": 0.4 * options.get("lr", 0.05), "weight_decay": 0.02}
    return kind([{"params": model[:3].parameters()}, rest], **{"lr": 0.05, "weight_decay": 0.01, **options})


def warm(k):
    return min(1.0, k / 10)


def cosine(k):
    return 0.5 * (1 + math.cos(k / 20))


def scheduled(optimizer, *factors):
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, list(factors))
    return lambda k: schedule.step() if k else None


def folders(folder):
    return sorted((p.parent for p in folder.rglob("record.h5")), key=lambda p: steps_of(p)["step"][0])


RULES = {
    "sgd": lambda m: two(m, momentum=0.9),
    "plain": two,
    "nesterov": lambda m: two(m, momentum=0.9, nesterov=True),
    "adamw": lambda m: two(m, torch.optim.AdamW, lr=1e-3),
    "adam": lambda m: two(m, torch.optim.Adam, lr=1e-3),
}


@pytest.mark.filterwarnings("ignore:neuralmech. groups of the optimizer have schedules of their own")
@pytest.mark.parametrize("rule", RULES)
def test_laws_are_exact_of_each_group_by_itself(tmp_path, rule):
    model = net()
    optimizer = RULES[rule](model)
    train(model, optimizer, tmp_path, each=scheduled(optimizer, warm, cosine))
    assert folders(tmp_path) == [tmp_path]  # η = 0 of one alone at the first step: it is known from there
    errors = law_errors(tmp_path, "moving_metric" if "adam" in rule else "discrete_broken")
    assert len(errors) >= 5
    assert max(errors.values()) < EXACT
    found = closures(tmp_path)
    across = [key for key, closure in found.items() if np.isnan(closure)]
    assert {(family.removesuffix("_metric"), site) for family, site in across} == {ACROSS}
    assert max(closure for key, closure in found.items() if key not in across) < 1e-10  # of charges that hardly move
    with open_record(tmp_path) as record:
        own = record.rules()["lr"]
    start = 0.05 if "adam" not in rule else 1e-3
    np.testing.assert_allclose(own[:, 0], [start * warm(k) for k in range(STEPS)], rtol=1e-12)
    np.testing.assert_allclose(own[:, 1], [0.4 * start * cosine(k) for k in range(STEPS)], rtol=1e-12)
    np.testing.assert_array_equal(steps_of(tmp_path)["lr"], own.max(axis=1))


@pytest.mark.filterwarnings("ignore:neuralmech. groups of the optimizer have schedules of their own")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_rows_are_the_definition_in_the_rates_of_each_group(tmp_path, dtype):
    """Where both begin alike, tensors are read where they are."""
    model, seen = net(dtype), []
    groups = [{"params": model[:3].parameters()}, {"params": model[3:].parameters()}]
    optimizer = torch.optim.SGD(groups, 0.05, momentum=0.9, weight_decay=0.01)
    step = scheduled(optimizer, lambda k: 1.0, cosine)

    def each(k):
        step(k)
        seen.append(nn.utils.parameters_to_vector(model.parameters()).detach().double())

    train(model, optimizer, tmp_path, each=each, dtype=dtype)
    theta = torch.stack([*seen, nn.utils.parameters_to_vector(model.parameters()).detach().double()]).numpy()
    parts = folders(tmp_path)
    assert [len(steps_of(part)["step"]) for part in parts] == [1, 1, STEPS - 2]
    size, split = theta.shape[1], sum(p.numel() for p in model[:3].parameters())
    found = neuralmech.find_symmetries(model, data(dtype)[0][:4])
    rates = np.ones((STEPS, size)) * 0.05
    rates[:, split:] *= np.array([cosine(k) for k in range(STEPS)])[:, None]
    update = ((theta[:-1] - theta[1:]) / rates)[2:]
    with open_record(parts[-1]) as record:
        assert record.rule["apart"]
        for name, family in found.families.items():
            charges, matrix = record.charges(name), generator_matrix(family, found.shapes)
            mine = (charges.index["rule"] >= 0).to_numpy()
            assert mine.all() == (name != "rescale")
            for signal, vectors in (("value", theta[2:-1]), ("drive_update", update)):
                truth = (matrix @ (vectors if family.is_translation else vectors**2).T).T
                measured = getattr(charges, signal)[:]
                scale = np.abs(truth).max()
                np.testing.assert_allclose(measured[:, mine], truth[:, mine], rtol=1e-6, atol=1e-12 * scale)
    errors = law_errors(parts[-1])
    assert max(errors.values()) < (EXACT if dtype == torch.float64 else 1e-5)  # 40 roundings of θ by 6·10⁻⁸


@pytest.mark.filterwarnings("ignore:neuralmech. groups of the optimizer have schedules of their own")
def test_momenta_of_groups_may_cycle(tmp_path):
    model = net()
    optimizer = two(model, momentum=0.9)
    optimizer.param_groups[1]["momentum"] = 0.5

    def each(k):
        for group, beta in zip(optimizer.param_groups, (0.9, 0.5), strict=True):
            group["momentum"] = beta * (1 - 0.01 * k)

    train(model, optimizer, tmp_path, each=each)
    parts = folders(tmp_path)
    assert sum(len(steps_of(part)["step"]) for part in parts) == STEPS
    assert len(parts) == 3
    assert max(law_errors(parts[-1]).values()) < EXACT


def test_groups_with_kinds_of_momentum_of_their_own(tmp_path):
    model = net()
    optimizer = two(model, momentum=0.9)
    optimizer.param_groups[0]["nesterov"], optimizer.param_groups[1]["dampening"] = True, 0.3
    with pytest.warns(UserWarning, match="of 8 charges that lie across them no law is known"):
        train(model, optimizer, tmp_path)
    errors = law_errors(tmp_path)
    assert len(errors) == 5
    assert max(errors.values()) < EXACT


def test_moments_of_groups_that_are_not_of_one_kind_make_no_metric(tmp_path):
    model = net()
    optimizer = two(model, torch.optim.AdamW, lr=1e-3)
    optimizer.param_groups[1]["betas"] = (0.8, 0.99)
    train(model, optimizer, tmp_path)
    found = closures(tmp_path)
    assert {family for family, _ in found} == {"translation", "scale", "rescale"}
    assert max(found.values()) < 1e-10


def test_a_rate_that_changes_once_is_a_metric_again(tmp_path):
    model = net()
    optimizer = two(model, momentum=0.9)

    def each(k):
        if k == 25:
            optimizer.param_groups[1]["lr"] *= 0.1

    train(model, optimizer, tmp_path, each=each)
    first, second = folders(tmp_path)
    assert ACROSS in law_errors(second, "discrete") or ACROSS in closures(second)
    with open_record(second) as record:
        assert record.rules() is None
    assert len(steps_of(first)["step"]) == 25


def test_layerwise_schedules_have_no_end(tmp_path):
    """More groups than there may be parts, each with a decay of its own at every step."""
    torch.manual_seed(0)
    layers = [m for _ in range(11) for m in (nn.Linear(6, 6), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(6, 4)).double()
    optimizer = sgd(model)
    optimizer.param_groups.clear()
    for n, layer in enumerate(m for m in model if isinstance(m, nn.Linear)):
        optimizer.add_param_group({"params": layer.parameters(), "lr": 0.05 * 0.9**n})
    rates = [lambda k, n=n: (1 - 0.002 * n) ** k for n in range(12)]
    with pytest.warns(UserWarning, match="schedules of their own"):
        train(model, optimizer, tmp_path, each=scheduled(optimizer, *rates))
    parts = folders(tmp_path)
    assert [len(steps_of(part)["step"]) for part in parts] == [1, 1, STEPS - 2]
    errors = law_errors(parts[-1])
    assert set(errors) == {("translation", "22.weight"), ("translation", "22.bias")}
    assert max(errors.values()) < EXACT


@pytest.mark.filterwarnings("ignore:neuralmech. groups of the optimizer have schedules of their own")
def test_resumed_behind_parts(tmp_path):
    """What has schedules of its own goes on in a part of its own, behind those that are there."""
    model = net()
    optimizer = two(model, momentum=0.9)

    def each(k):
        optimizer.param_groups[1]["lr"] *= 0.99

    train(model, optimizer, tmp_path, each=each)
    assert [p.name for p in folders(tmp_path)][1:] == ["part-2", "part-3"]
    optimizer.param_groups[1]["nesterov"] = True  # of one group alone: no metric from the first step
    train(model, optimizer, tmp_path, each=each, resume=True)
    assert [p.name for p in folders(tmp_path)][1:] in (["part-4", "part-2", "part-3"], ["part-2", "part-4", "part-3"])
    last = tmp_path / "part-4"
    assert len(steps_of(last)["step"]) == STEPS
    assert max(law_errors(last).values()) < EXACT


@pytest.mark.filterwarnings("ignore:neuralmech. groups of the optimizer have schedules of their own")
def test_trackers_are_told_of_each_group_in_its_own_rate(tmp_path):
    model = net()
    optimizer = two(model)
    train(model, optimizer, tmp_path, each=scheduled(optimizer, warm, cosine), logger="csv", logger_every=1)
    with open_record(tmp_path) as record:
        charges, own = record.charges("scale"), record.rules()["lr"][:, 0]
        mean = charges.value[:].mean(axis=1)
    table = pd.read_csv(tmp_path / "logged.csv")
    found = table[table["name"] == "effective_lr/0"]["value"]
    np.testing.assert_allclose(found, own / mean, rtol=1e-6)
    assert not any("share/rescale/1 -> 3" in name for name in table["name"])
