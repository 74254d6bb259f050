"""Rewritten graphs compute what the model computes, and their weights keep rows and columns."""

import copy

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from nets import NETS
from nets_more import MORE, Net, floats
from neuralmech.discovery.canonical import simplified
from neuralmech.discovery.discover import RULED, find_symmetries
from neuralmech.discovery.scale import ScaleAlgebra
from neuralmech.discovery.trace import operation, trace
from neuralmech.discovery.walk import walk
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
    "viewed": lambda s, x: F.linear(torch.relu(F.linear(x, s.k.view(5, 4), s.b)), s.c),
    "squeezed": lambda s, x: F.linear(torch.relu(F.linear(x, s.k.squeeze(-1), s.b)), s.c),
    "selected": lambda s, x: torch.relu(x @ s.k[..., 0].T + s.b) @ (0.5 * s.c).T,
    "flattened": lambda s, x: F.linear(torch.relu(F.linear(x, s.q.flatten(1))), s.c),
    "a kernel": lambda s, x: F.linear(torch.relu(F.conv1d(x[:, :, None], s.a.unsqueeze(-1), s.b)[..., 0]), s.c),
    "a kernel of two": lambda s, x: F.linear(
        torch.relu(F.conv2d(x[:, :, None, None], s.a.view(5, 4, 1, 1), padding="valid")).flatten(1) + s.b, s.c
    ),
    "cast to its own type": lambda s, x: F.linear(torch.relu(F.linear(x, s.a.to(x.dtype), s.b)), s.c.to(x)),
    "parallel": lambda s, x: F.linear(torch.relu(F.linear(x, s.a * 0.5) + F.linear(x, s.d * 0.5, s.b)), s.c),
    "joined": lambda s, x: F.linear(torch.relu(F.linear(x, torch.cat([s.a, s.d]), torch.cat([s.b, s.e]))), s.f),
    "joined without biases": lambda s, x: F.linear(torch.relu(F.linear(x, torch.cat([s.a, s.d]))), s.f) + 0 * x[:, :3],
}
PARTS = {"k": (5, 4, 1), "q": (5, 4, 1, 1), "d": (5, 4), "e": (5,), "f": (3, 10), "g": (4, 5)}
USED = {
    "turned": "g",
    "viewed": "k",
    "squeezed": "k",
    "selected": "k",
    "flattened": "q",
    "parallel": "d",
    "joined": "def",
    "joined without biases": "df",
}


def written(name):
    torch.manual_seed(0)
    parts = two_weights(**{k: torch.randn(PARTS[k]) for k in USED.get(name, "")})
    if name in ("turned", "viewed", "squeezed", "selected", "flattened"):
        del parts["a"]
    if "joined" in name:
        del parts["c"]
    if name in ("joined without biases", "flattened"):
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


# Of the others `test_expanding.py` compares what the graphs compute that discovery rewrites.
@pytest.mark.parametrize("name", [n if n in WRITTEN else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_rewritten_graphs_compute_the_same(name):
    build, inputs = CASES[name]
    torch.manual_seed(0)
    model = build().double().train()
    x = inputs(torch.Generator().manual_seed(0))
    traced = trace(model, (x,))
    plain = values(traced, model, x)  # before the graph is rewritten in place
    torch.testing.assert_close(values(simplified(traced), model, x), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", WRITTEN)
def test_weights_stand_in_linear_maps_as_they_are(name):
    model = written(name)
    traced = simplified(trace(model, (torch.randn(12, 4),), RULED))
    maps = ("linear", "matmul", "mm", "addmm", "conv1d", "conv2d")
    weights = [n.args[1] for n in traced.graph.nodes if operation(n) in maps]
    assert len(weights) >= 2
    assert all(w.name in traced.parameters for w in weights)


@pytest.mark.parametrize("name", WRITTEN)
def test_nothing_is_missed(name):
    check(written(name), (12, 4))


WIDE, MANY = 120, 90  # together 210, multiplied 10,800
ROUNDED = torch.bfloat16
LARGE = {  # a weight (out, in, 1, 1) or (out, in) and what is made of it before it is read
    "a view": (1, lambda x, w: F.linear(x, w.view(WIDE, MANY))),
    "squeezed": (1, lambda x, w: F.linear(x, w.squeeze(-1).squeeze(-1))),
    "of a view of a view": (1, lambda x, w: F.linear(x, w.squeeze(-1).clone()[..., 0])),
    "a view, transposed": (1, lambda x, w: x @ w.flatten(1).T),
    "transposed": (0, lambda x, w: x @ w.T),
    "transposed, halved": (0, lambda x, w: F.linear(x, (0.5 * w.T).T)),
    "halved": (0, lambda x, w: F.linear(x, w * 0.5)),
    "another kernel": (1, lambda x, w: F.conv1d(x[:, :, None], w[..., 0])[..., 0]),
    "a kernel": (0, lambda x, w: F.conv1d(x[:, :, None], w[:, :, None])[..., 0]),
    "rounded": (0, lambda x, w: F.linear(x.to(ROUNDED), w.to(ROUNDED)).float()),
    "rounded, a bias": (0, lambda x, w: F.linear(x.to(ROUNDED), w.to(ROUNDED), w.new_zeros(WIDE).to(ROUNDED)).float()),
    "rounded, transposed": (0, lambda x, w: (x.to(ROUNDED) @ w.to(ROUNDED).T).float()),
    "a rounded kernel": (0, lambda x, w: F.conv1d(x.to(ROUNDED)[:, :, None], w.to(ROUNDED)[..., None])[..., 0].float()),
}


@pytest.mark.parametrize("name", LARGE)
def test_unknowns_of_a_weight_are_as_many_as_its_rows_and_columns(name):
    ones, read = LARGE[name]
    model = Net(
        lambda s, x: F.linear(torch.relu(read(torch.relu(x @ s.a), s.w)), s.c),
        **{"a": torch.randn(4, MANY), "w": torch.randn(WIDE, MANY, *[1] * 2 * ones), "c": torch.randn(3, WIDE)},
    )
    traced = simplified(trace(model, (torch.randn(6, 4),), RULED))
    algebra = ScaleAlgebra(traced.frozen)
    walk(traced, algebra)
    assert "w" in algebra.factors
    assert "w" not in algebra.entry_ids
    assert algebra.system.new(1)[0] < 10 * (WIDE + MANY)


def test_a_weight_that_is_rounded_is_named_where_it_is_cast():
    torch.manual_seed(0)
    rounded = Net(
        lambda s, x: F.linear(torch.relu(F.linear(x.to(ROUNDED), s.a.to(ROUNDED), s.b.to(ROUNDED)).float()), s.c),
        **two_weights(),
    )
    found = find_symmetries(rounded, torch.randn(12, 4))
    assert len(found.approximations) == 1
    assert "bfloat16" in found.approximations[0]
    assert found.sites["rescale"] == {"a + b -> c": 5}


def test_as_many_charges_as_with_linear():
    """Shifts of the head's columns and mixing of linear layers too, which entries by themselves do not have."""
    torch.manual_seed(0)
    by_hand = Net(lambda s, x: (x @ s.a.T + s.b) @ s.c.T * 0.5, **two_weights())
    layers = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3, bias=False))
    x = torch.randn(12, 4)
    counts = [{k: len(v) for k, v in find_symmetries(m, x).families.items()} for m in (by_hand, layers)]
    assert counts[0] == counts[1]
    assert counts[0]["linear"] == 15


def test_an_empty_kernel_that_is_viewed_is_no_error():
    model = Net(
        lambda s, x: F.linear(x, s.a, s.b) + F.linear(x, s.k.view(0, 4)).sum(), **two_weights(k=torch.randn(0, 4, 1))
    )
    found = find_symmetries(model, torch.randn(12, 4))
    assert "k" in found.uncovered
