"""Rewritten graphs compute what the model computes, and their weights keep rows and columns."""

import copy

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from nets import NETS
from nets_more import MORE, Net, floats
from neuralmech.symmetry.canonical import simplified
from neuralmech.symmetry.discover import find_symmetries
from neuralmech.symmetry.trace import operation, trace
from oracle import check


def two_weights(**parts):
    return {"a": torch.randn(5, 4), "b": torch.randn(5), "c": torch.randn(3, 5)} | parts


WRITTEN = {  # a weight that meets an operation before its linear map, and the same net with the weight as it is
    "transposed": lambda s, x: torch.relu(x @ s.a.T + s.b) @ s.c.t(),
    "permuted": lambda s, x: F.linear(torch.relu(torch.matmul(x, s.a.permute(1, 0)) + s.b), s.c),
    "addmm": lambda s, x: F.linear(torch.relu(torch.addmm(s.b, x, s.a.T)), s.c),
    "turned twice": lambda s, x: F.linear(torch.relu(F.linear(x, s.a.T.clone().T, s.b)), s.c),
    "turned": lambda s, x: F.linear(torch.relu(F.linear(x, s.g.T, s.b)), s.c),
    "halved": lambda s, x: F.linear(torch.relu(F.linear(x, s.a * 0.5, s.b)), 3 * s.c),
    "divided": lambda s, x: F.linear(torch.relu(F.linear(x, -s.a / 4, s.b)), s.c),
    "halved and transposed": lambda s, x: torch.relu(x @ (0.5 * s.a).T + s.b) @ (s.c.T / 2),
    "parallel": lambda s, x: F.linear(torch.relu(F.linear(x, s.a * 0.5) + F.linear(x, s.d * 0.5, s.b)), s.c),
    "joined": lambda s, x: F.linear(torch.relu(F.linear(x, torch.cat([s.a, s.d]), torch.cat([s.b, s.e]))), s.f),
    "joined without biases": lambda s, x: F.linear(torch.relu(F.linear(x, torch.cat([s.a, s.d]))), s.f) + 0 * x[:, :3],
}
PARTS = {"d": (5, 4), "e": (5,), "f": (3, 10), "g": (4, 5)}
USED = {"turned": "g", "parallel": "d", "joined": "def", "joined without biases": "df"}


def written(name):
    torch.manual_seed(0)
    parts = two_weights(**{k: torch.randn(PARTS[k]) for k in USED.get(name, "")})
    if name == "turned":
        del parts["a"]
    if "joined" in name:
        del parts["c"]
    if name == "joined without biases":
        del parts["b"]
    return Net(WRITTEN[name], **parts)


def values(traced, model, x):
    """What a graph computes of a model's parameters and an input."""
    named = dict(model.named_parameters())
    graph = copy.deepcopy(traced.graph)
    inputs = []
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            at = traced.parameters.get(node.name)
            inputs.append(named[at] if at else traced.constants.get(node.name, x))
    torch.manual_seed(1)
    interpreter = fx.Interpreter(fx.GraphModule(nn.Module(), graph), garbage_collect_values=False)
    interpreter.run(*inputs)
    return next(v for n, v in interpreter.env.items() if n.name == traced.output.name)


CASES = (
    {name: (lambda name=name: written(name), floats(12, 4)) for name in WRITTEN}
    | {name: (build, floats(*shape)) for name, (build, shape, _) in NETS.items()}
    | MORE
)


@pytest.mark.parametrize("name", CASES)
def test_rewritten_graphs_compute_the_same(name):
    build, inputs = CASES[name]
    torch.manual_seed(0)
    model = build().double().train()
    x = inputs(torch.Generator().manual_seed(0))
    plain = values(trace(model, (x,)), model, x)
    torch.testing.assert_close(values(simplified(trace(model, (x,))), model, x), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", WRITTEN)
def test_weights_stand_in_linear_maps_as_they_are(name):
    model = written(name)
    traced = simplified(trace(model, (torch.randn(12, 4),)))
    weights = [n.args[1] for n in traced.graph.nodes if operation(n) in ("linear", "matmul", "mm", "addmm")]
    assert len(weights) >= 2
    assert all(w.name in traced.parameters for w in weights)


@pytest.mark.parametrize("name", WRITTEN)
def test_nothing_is_missed(name):
    check(written(name), (12, 4))


def test_as_many_charges_as_with_linear():
    """Shifts of the head's columns and mixing of linear layers too, which entries by themselves do not have."""
    torch.manual_seed(0)
    by_hand = Net(lambda s, x: (x @ s.a.T + s.b) @ s.c.T * 0.5, **two_weights())
    layers = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3, bias=False))
    x = torch.randn(12, 4)
    counts = [{k: len(v) for k, v in find_symmetries(m, x).families.items()} for m in (by_hand, layers)]
    assert counts[0] == counts[1]
    assert counts[0]["linear"] == 15
