"""A program that is decomposed operation by operation computes what the model computes, or is left to torch."""

import copy

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from nets import NETS
from nets_mixers import ALL
from nets_more import Net
from neuralmech.discovery import expanding
from neuralmech.discovery.canonical import simplified
from neuralmech.discovery.discover import RULED, find_symmetries
from neuralmech.discovery.trace import trace

WIDE = {"a": (4, 4), "b": (4,)}


def parts(names):
    torch.manual_seed(0)
    return {n: torch.randn(WIDE[n]) for n in names}


def through_a_view(s, x):
    h = F.linear(x, s.a)
    h[:, 1:].mul_(2.0)
    return h


def before_a_view(s, x):
    h = F.linear(x, s.a)
    part = h[:, 1:]
    h.mul_(2.0)
    return h.sum(1, keepdim=True) + part


def read_back(s, x):
    h = F.linear(x, s.a)
    mean, var = torch.zeros(4, dtype=x.dtype), torch.ones(4, dtype=x.dtype)
    return F.batch_norm(h, mean, var, training=True, momentum=0.5) * mean


WRITES = {  # what is written to, and whether something else refers to it
    "again and again": (lambda s, x: F.linear(x, s.a).add_(s.b).relu_().mul_(2.0), True),
    "and read by its first name": (lambda s, x: (lambda h: (h.relu_(), h + 1)[1])(F.linear(x, s.a)), True),
    "and read before": (lambda s, x: (lambda h: h.exp() + h.relu_())(F.linear(x, s.a)), True),
    "transposed": (lambda s, x: F.linear(x, s.a).relu_().T.reshape(4, -1).T, True),
    "a norm": (lambda s, x: F.batch_norm(F.linear(x, s.a), None, None, s.b, training=True).relu_(), True),
    "through a view": (through_a_view, False),
    "before a view is read": (before_a_view, False),
    "statistics that are read back": (read_back, False),
    "half of it by chance": (lambda s, x: F.linear(x, s.a) * torch.empty_like(x).bernoulli_(0.5), True),
    "without a gradient": (lambda s, x: F.linear(x, s.a) + torch.no_grad()(torch.relu)(F.linear(x, s.a)), None),
}
MADE = {name: (lambda f=f: Net(f, **parts("ab")), (6, 4), alone) for name, (f, alone) in WRITES.items()}


def each_once(monkeypatch):
    """Decompose even small programs so; the list says for each whether it could be."""
    told, real = [], expanding._each_once
    monkeypatch.setattr(expanding, "FEW", 0)

    def watched(*args):
        told.append(False)
        found = real(*args)
        told[-1] = True
        return found

    monkeypatch.setattr(expanding, "_each_once", watched)
    return told


def value_of(traced, model, x):
    named = dict(model.named_parameters())
    inputs = []
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            at = traced.parameters.get(node.name)
            inputs.append(named[at] if at else traced.constants.get(node.name, x))
    graph = fx.Graph()
    graph.output(graph.graph_copy(traced.graph, known := {}) and known[traced.output])
    return fx.Interpreter(fx.GraphModule(nn.Module(), graph)).run(*copy.deepcopy(inputs))


def case(name):
    """A net, a batch, and whether it is decomposed each operation once, where that is known."""
    torch.manual_seed(0)
    if name in ALL:
        build, inputs = ALL[name]
        return build().double().train(), inputs(torch.Generator().manual_seed(0)), None
    build, shape, alone = MADE[name] if name in MADE else (*NETS[name][:2], None)
    return build().double().train(), torch.randn(*shape, dtype=torch.float64), alone


ALL_OF_THEM = [pytest.param(n, frozenset(), marks=[pytest.mark.slow][n in MADE :]) for n in [*MADE, *NETS, *ALL]]
AS_DISCOVERY = [(n, RULED) for n in [*MADE, *NETS, *ALL]]


@pytest.mark.parametrize(("name", "keep"), [*ALL_OF_THEM, *AS_DISCOVERY])
def test_each_operation_once_computes_the_same(name, keep, monkeypatch):
    told = each_once(monkeypatch)
    model, x, alone = case(name)
    traced = trace(model, (x,), keep)
    assert alone is None or told == [alone]
    torch.manual_seed(1)
    expected = copy.deepcopy(model)(x)
    for graph in (lambda: traced, lambda: simplified(traced)):  # rewritten in place
        torch.manual_seed(1)
        torch.testing.assert_close(value_of(graph(), model, x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_each_operation_once_has_the_same_symmetries(name, monkeypatch):
    build, shape, _ = NETS[name]
    torch.manual_seed(0)
    model = build().train()
    x = torch.randn(*shape)
    expected = find_symmetries(model, x)
    each_once(monkeypatch)
    found = find_symmetries(model, x)
    assert found.sites == expected.sites
    assert found.barriers == expected.barriers
    for family, rows in expected.generators().items():
        assert (found.generators()[family] != rows).nnz == 0
