"""What norms ignore binds nothing: biases and numbers in front of them, the factors of norms before them."""

import pytest
import torch
from torch import nn

from finite import CHANGED, largest_change
from nets import TINY
from nets_more import Net, floats
from neuralmech.discovery.discover import find_symmetries
from oracle import check
from random_nets import make


def batch(width=4):
    return nn.BatchNorm1d(width, eps=TINY)


def rms():
    return nn.RMSNorm(4, eps=TINY)


def layer():
    return nn.LayerNorm(4, eps=TINY)


def square(bias=True):
    return nn.Linear(4, 4, bias=bias)


def net(forward, **parts):
    return lambda: Net(lambda s, x: s.head(torch.relu(forward(s, x))), head=nn.Linear(4, 3), **parts)


def twice(s, x):
    return s.shared(torch.relu(s.shared(x)))


NETS = {  # a new net each time: the parts are made when the test asks
    "a shared layer's bias": lambda: net(lambda s, x: s.norm(twice(s, x)), shared=square(), norm=batch()),
    "through a sum": lambda: net(
        lambda s, x: s.norm(s.a(x) - 0.5 * twice(s, x)), a=square(), shared=square(), norm=batch()
    ),
    "through a concatenation": lambda: net(
        lambda s, x: s.back(torch.relu(s.norm(torch.cat([s.a(x), -twice(s, x)], 1)))),
        a=nn.Linear(4, 2), shared=square(), norm=batch(6), back=nn.Linear(6, 4),
    ),
    "through a linear layer": lambda: net(
        lambda s, x: s.norm(s.a(twice(s, x))), a=square(), shared=square(), norm=batch()
    ),
    "read by another branch, too": lambda: net(
        lambda s, x: (lambda h: s.norm(h) + torch.relu(h))(twice(s, x)), shared=square(), norm=batch()
    ),
    "a bias before a LayerNorm": lambda: net(lambda s, x: s.norm(twice(s, x)), shared=square(), norm=layer()),
    "a number before BatchNorm": lambda: net(
        lambda s, x: s.norm(torch.relu(s.a(x)) + 1), a=square(), norm=batch()
    ),
    "a number before LayerNorm": lambda: net(
        lambda s, x: s.norm(1 - torch.relu(s.a(x))), a=square(), norm=layer()
    ),
    "a number before RMSNorm": lambda: net(
        lambda s, x: s.norm(torch.relu(s.a(x)) + 1), a=square(), norm=rms()
    ),
    "a parameter that is also a factor": lambda: net(
        lambda s, x: s.norm(torch.relu(s.a(x)) + s.p) * s.p, a=square(), norm=batch(), p=torch.ones(4)
    ),
    "stacked": lambda: net(lambda s, x: s.second(s.first(s.a(x))), a=square(), first=rms(), second=rms()),
    "stacked three times": lambda: net(
        lambda s, x: s.third(s.second(s.first(s.a(x)))), a=square(), first=rms(), second=rms(), third=rms()
    ),
    "a LayerNorm last": lambda: net(
        lambda s, x: s.second(s.b(torch.relu(s.first(s.a(x))))), a=square(), b=square(False), first=rms(),
        second=layer(),
    ),
    "equal powers": lambda: net(
        lambda s, x: (lambda u: s.second(u + s.b(u).abs()))(s.first(s.a(x))), a=square(), b=square(False),
        first=rms(), second=rms(),
    ),
    "a product": lambda: net(
        lambda s, x: (lambda u: s.second(u**3 * s.b(u)))(s.first(s.a(x))), a=square(), b=square(False), first=rms(),
        second=rms(),
    ),
    "unequal powers": lambda: net(
        lambda s, x: (lambda u: s.second(u * s.b(u).abs() + u))(s.first(s.a(x))), a=square(), b=square(False),
        first=rms(), second=rms(),
    ),
    "a bias between": lambda: net(
        lambda s, x: s.second(s.b(s.first(s.a(x)))), a=square(), b=square(), first=rms(), second=rms()
    ),
    "a number between": lambda: net(
        lambda s, x: s.second(s.first(s.a(x)) + 1), a=square(), first=rms(), second=rms()
    ),
    "tanh between": lambda: net(
        lambda s, x: s.second(torch.tanh(s.first(s.a(x)))), a=square(), first=rms(), second=rms()
    ),
    "a BatchNorm last": lambda: net(
        lambda s, x: s.second(s.first(s.a(x))), a=square(), first=rms(), second=batch()
    ),
    "positions mixed between": lambda: net(
        lambda s, x: s.second(s.first(s.a(x)).roll(1, 0) + s.first(s.a(x))), a=square(), first=rms(), second=rms()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_discovery_equals_the_numeric_null_space(name):
    torch.manual_seed(0)
    check(NETS[name]()(), floats(12, 4))


def test_a_layer_used_twice_before_a_norm_keeps_its_weight():
    """Its bias is ignored at the second use; the weight scales with the exponent −1/2, all entries alike."""
    torch.manual_seed(0)
    program = (3, [("twice",), ("twice",), ("residual", [("batch_plain",)]), ("batch",)])
    check(make(program), floats(12, 3), complete=False)


def test_the_weight_between_two_batchnorms_is_a_scale_because_its_sign_is_felt():
    """It has no gradient, so that the null spaces of both families hold it; only scales hold for finite amounts."""
    model = nn.Sequential(nn.Linear(4, 4), batch(), batch(), nn.Linear(4, 3)).double()
    found = find_symmetries(model, torch.randn(6, 4, dtype=torch.float64))
    assert found.sites["scale"] == {"0": 4, "1": 4}
    assert "1.weight" not in found.sites["translation"]
    check(model, floats(6, 4), found=found)
    assert largest_change(found, model, floats(6, 4)) < CHANGED
