import logging

import pytest
import torch
from hypothesis import assume, given, reject, settings
from torch import nn
from torch.nn import functional as F

from nets import NETS, TINY, Shared, Unused, mlp
from nets_mixers import ALL
from nets_more import Net
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from oracle import UnclearError, check, check_sites
from random_nets import has_known_gap, make, programs, unhurried


@pytest.mark.parametrize("name", NETS)
def test_discovery_equals_the_numeric_null_space(name):
    build, shape, expected = NETS[name]
    torch.manual_seed(0)
    dimensions = check(build(), shape)
    if expected is not None:
        assert dimensions == expected


@pytest.mark.parametrize("name", ALL)
def test_discovery_equals_the_numeric_null_space_for_more_ops(name):
    build, inputs = ALL[name]
    torch.manual_seed(0)
    check(build(), inputs)


def check_random(program):
    torch.manual_seed(0)
    net = make(program)
    assume(sum(p.numel() for p in net.parameters()) < 150)
    try:
        check(net, (12, 3), complete=not has_known_gap(program))
    except UnclearError:
        reject()


@settings(unhurried, max_examples=20, derandomize=True)
@given(programs)
def test_discovery_equals_the_numeric_null_space_for_random_nets(program):
    check_random(program)


@pytest.mark.slow
@pytest.mark.parametrize("_", range(2))  # on as many cores
@settings(unhurried, max_examples=300)
@given(programs)
def test_discovery_equals_the_numeric_null_space_for_many_random_nets(_, program):
    check_random(program)


class Doubled(torch.autograd.Function):
    """relu with twice its gradient."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return torch.relu(x) @ weight.T

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return 2 * (grad @ weight) * (x > 0), grad.T @ torch.relu(x)


TRAPS = {  # shapes of false claims that a careless rule would make
    "weight read as it is": lambda s, x: s.head(torch.relu(s.a(x))) + s.a.weight[:3, 0],
    "norm weight added": lambda s, x: s.head(torch.relu(s.norm(s.a(x)) + s.norm.weight)),
    "complex spectrum": lambda s, x: s.head(torch.tanh(torch.fft.fft(s.a(x)).abs())),
    "divisor override": lambda s, x: s.head(
        (F.avg_pool1d(s.a(x)[:, None], 2, stride=1) - 2 * s.b(x)[:, None, 1:]).flatten(1).repeat(1, 2)[:, :4]
    ),
    "frozen statistics": lambda s, x: s.head(torch.relu(F.batch_norm(s.a(x), s.mean, s.variance, training=False))),
    "detached": lambda s, x: s.head(torch.relu(s.a(x)) * s.b(x).detach()),
    "clamped": lambda s, x: s.head(s.a(x).clamp(-1, 1)),
    "relu6": lambda s, x: s.head(F.relu6(s.a(x))),
    "hard swish": lambda s, x: s.head(F.hardswish(s.a(x))),
    "padded with ones": lambda s, x: s.head(F.pad(torch.relu(s.a(x))[:, :3], (1, 0), value=1.0)),
    "padded with zeros, plus one": lambda s, x: s.head(torch.tanh(F.pad(torch.relu(s.a(x))[:, :3], (1, 0)) + 1)),
    "filled with ones": lambda s, x: s.head(torch.relu(s.a(x)).slice_scatter(torch.ones_like(x[:, :2]), 1, 0, 2)),
    "cumulative sum": lambda s, x: s.head(torch.relu(s.a(x)).cumsum(1)),
    "a gradient of its own": lambda s, x: s.head(s.norm(Doubled.apply(s.a(x), s.b.weight))),
    "a gradient of its own, last": lambda s, x: Doubled.apply(s.a(x), s.head.weight),
    "a bounded table": lambda s, x: s.head(torch.relu(s.a(F.embedding(x.argmax(1), s.b.weight, max_norm=1.0)))),
    "a bag": lambda s, x: s.head(torch.relu(F.embedding_bag((x > 0).long(), s.b.weight, scale_grad_by_freq=True))),
}


@pytest.mark.parametrize("name", TRAPS)
def test_no_false_claim_is_made(name):
    torch.manual_seed(0)
    net = Net(TRAPS[name], a=nn.Linear(4, 4), b=nn.Linear(4, 4), norm=nn.LayerNorm(4, eps=TINY), head=nn.Linear(4, 3))
    net.register_buffer("mean", torch.zeros(4))
    net.register_buffer("variance", torch.ones(4))
    check(net, (12, 4), complete=False)


@pytest.mark.parametrize("noise", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_windows_and_relative_positions_of_a_small_swin_are_all_found(noise):
    from torchvision.models.swin_transformer import SwinTransformer

    torch.manual_seed(0)
    net = SwinTransformer([2, 2], 4, [2], [2], [2, 2], mlp_ratio=1.0, num_classes=3, stochastic_depth_prob=noise)
    for module in net.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = TINY
    *_, sites = check_sites(net, (4, 3, 8, 8))
    assert sites["translation"]["features.1.0.attn.relative_position_bias_table"] == 2  # one for each head


def test_tied_layers_are_one_parameter():
    shared = nn.Linear(4, 4)
    net = Net(lambda s, x: s.head(torch.relu(s.b(torch.relu(s.a(x))))), a=shared, b=shared, head=nn.Linear(4, 3))
    check(net, (12, 4))


def test_mse_ignores_no_shift():
    torch.manual_seed(0)
    assert check(mlp(4, 5, 3), (16, 4), loss="mse") == (5, 0)


def test_sites_and_reasons_are_readable():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    found = find_symmetries(net, torch.randn(2, 4))
    assert found.sites == {"translation": {"4.weight": 6, "4.bias": 1}, "rescale": {"2 -> 4": 6}}
    assert list(found.uncovered) == ["0.weight", "0.bias"]
    assert all("tanh" in reason for reason in found.uncovered.values())
    assert [b.operation for b in found.barriers] == ["tanh"]


def test_unread_parameters_are_listed():
    assert find_symmetries(Unused(), torch.randn(2, 4)).uncovered == {
        "idle.weight": "no gradient: the loss does not read it",
        "idle.bias": "no gradient: the loss does not read it",
    }


def test_the_model_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    find_symmetries(net, torch.randn(2, 1, 4, 4))
    assert not net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_order_and_names_are_stable():
    first, second = (find_symmetries(Shared(), torch.randn(2, 4)) for _ in range(2))
    assert first.sites == second.sites
    for name, matrix in first.generators().items():
        assert (matrix != second.generators()[name]).nnz == 0


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Loop(nn.Module):
    def forward(self, x):
        return x * x.sum().item() if int(x.argmax()) > 1 else x


class Numpy(nn.Module):
    def forward(self, x):
        return torch.tensor(x.detach().numpy())


def line_of(model):
    code = type(model).forward.__code__
    return rf"test_discover.py:{code.co_firstlineno + 1}; "


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branch(), "Branch cannot be traced: what it computes depends on the data at .*"),
        (Loop(), "Loop cannot be traced: what it computes depends on the data at .*"),
        (Numpy(), "torch.export cannot trace Numpy: .*numpy.* at .*"),
    ],
)
def test_a_model_that_cannot_be_traced_is_named_with_the_line_and_the_way_out(model, message, capfd):
    before = logging.root.manager.disable
    with pytest.raises(UserError, match=message + line_of(model) + ".*neuralmech.SymmetryGroup") as caught:
        find_symmetries(model, torch.randn(2, 3))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == before


def test_inputs_that_do_not_fit_are_told_from_branches(capfd):
    with pytest.raises(UserError, match=r"Sequential cannot take inputs of shape \(2, 7\): .*7.*; give it the samples"):
        find_symmetries(mlp(4, 5, 3), torch.randn(2, 7))
    assert capfd.readouterr() == ("", "")


def test_a_model_that_cannot_be_copied_is_named():
    net = mlp(4, 5, 3)
    nn.utils.spectral_norm(net[0])
    net(torch.randn(2, 4))
    with pytest.raises(UserError, match=r"cannot be copied.*use torch.nn.utils.parametrizations"):
        find_symmetries(net, torch.randn(2, 4))


def test_what_is_no_model_or_no_input_is_named():
    with pytest.raises(UserError, match=r"model: int is no torch.nn.Module"):
        find_symmetries(3, torch.randn(2, 4))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="example_inputs: give a tensor"):
        find_symmetries(mlp(4, 5, 3), [torch.randn(2, 4)])  # type: ignore[arg-type]


def test_unknown_loss_is_named():
    with pytest.raises(UserError, match="loss=hinge is unknown; choose one of cross_entropy, mse, bce"):
        find_symmetries(mlp(4, 5, 3), torch.randn(2, 4), loss="hinge")


class Positions(nn.Module):
    """A table of positions, read by an index computed inside: it is needed in numbers, even on meta."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(7, 4)), nn.Linear(4, 3)
        self.trunk = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))

    def forward(self, x):
        at = torch.arange(x.shape[1], device=x.device)
        return self.head(torch.relu(self.trunk(x) + self.table[at + 1])).mean(1)


@pytest.mark.parametrize("build", [Positions, Shared])
@pytest.mark.parametrize("made_on_meta", [True, False])
def test_a_model_without_numbers_has_the_same_symmetries(build, made_on_meta):
    torch.manual_seed(0)
    with torch.device("meta" if made_on_meta else "cpu"):
        bare = build()
    bare = bare if made_on_meta else bare.to("meta")
    inputs = torch.randn(2, 4) if build is Shared else torch.randn(2, 3, 4)
    real, found = find_symmetries(build(), inputs), find_symmetries(bare, inputs)
    assert real.generators().keys() == found.generators().keys()
    for name, matrix in real.generators().items():
        assert (matrix != found.generators()[name]).nnz == 0
    assert real.uncovered == found.uncovered
    assert all(p.is_meta for p in bare.parameters())
