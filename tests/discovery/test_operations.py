"""What operations are read as, against what torch computes."""

import pytest
import torch
from torch import Tensor, fx

from neuralmech.discovery.geometry import PADDING
from neuralmech.discovery.movements import Padding, move
from neuralmech.discovery.operations import Convolution, Norm, Pool, Reduction
from neuralmech.discovery.schema import arguments

ATEN = torch.ops.aten
X = torch.arange(2 * 3 * 7 * 6.0).reshape(2, 3, 7, 6)


def node_of(op, *args, **kwargs):
    """A call in a graph, with its value."""
    graph = fx.Graph()

    def placed(value):
        if not isinstance(value, Tensor):
            return value
        node = graph.placeholder("x")
        node.meta["val"] = value
        return node

    node = graph.call_function(op, tuple(map(placed, args)), {k: placed(v) for k, v in kwargs.items()})
    node.meta["val"] = op(*args, **kwargs)
    return node


def test_arguments_are_the_same_in_order_and_by_name():
    weight = torch.ones(4, 3, 2, 2)
    in_order = node_of(ATEN.conv2d.default, X, weight, None, [2, 1], [1, 1], [1, 1], 1)
    by_name = node_of(ATEN.conv2d.default, X, weight=weight, stride=[2, 1], padding=[1, 1])
    assert Convolution.of(in_order) == Convolution.of(by_name)
    assert not Convolution.of(by_name).is_pointwise
    assert arguments(by_name)["groups"] == 1


@pytest.mark.parametrize("sized", [ATEN.sym_size.int, ATEN._local_scalar_dense.default])
def test_a_size_is_its_number_and_what_data_hold_is_not(sized):
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.ones(4)
    number = graph.call_function(sized, (x, 0) if sized is ATEN.sym_size.int else (x,))
    number.meta["val"] = 4
    double = graph.call_function(torch.mul, (number, 2))
    double.meta["val"] = 8
    node = graph.call_function(ATEN.expand.default, (x, [number, double]))
    known = sized is ATEN.sym_size.int
    assert arguments(node)["size"] == ([4, 8] if known else [number, double])


@pytest.mark.parametrize(
    ("op", "given"),
    [
        (ATEN.mean.default, ()),
        (ATEN.mean.dim, ([-1, 0], True)),
        (ATEN.sum.dim_IntList, ([1],)),
        (ATEN.amax.default, ()),
        (ATEN.amax.default, ([2, 3], True)),
        (ATEN.var.default, (False,)),
        (ATEN.var.dim, ([1], False, True)),
        (ATEN.linalg_vector_norm.default, (2, [3])),
        (ATEN.argmax.default, (1,)),
        (ATEN.logsumexp.default, ([0, 2], True)),
    ],
)
def test_a_reduction_has_the_shape_and_the_places_of_its_output(op, given):
    node = node_of(op, X, *given)
    taken = Reduction.of(node)
    kept = [1 if d in taken.dims else n for d, n in enumerate(X.shape)]
    shape = kept if taken.keep else [n for d, n in enumerate(X.shape) if d not in taken.dims]
    assert list(node.meta["val"].shape) == shape
    assert taken.count * node.meta["val"].numel() == X.numel()
    for d in (d for d in range(X.dim()) if d not in taken.dims):
        assert node.meta["val"].shape[taken.dim_after(d)] == X.shape[d]


@pytest.mark.parametrize(
    ("op", "given"),
    [
        (ATEN.avg_pool2d.default, ([2, 3],)),
        (ATEN.avg_pool2d.default, ([3, 3], [2, 1], [1, 1])),
        (ATEN.avg_pool2d.default, ([3], [2], [1], False, False)),
        (ATEN.max_pool2d.default, ([3, 2], [], [1, 0], [2, 1])),
        (ATEN.max_pool2d_with_indices.default, ([2], [2], [1])),
        (ATEN.adaptive_avg_pool2d.default, ([3, 4],)),
        (ATEN.adaptive_max_pool2d.default, ([2, 5],)),
    ],
)
def test_the_windows_of_a_pool_hold_what_it_pools(op, given):
    node = node_of(op, X, *given)
    pool, val = Pool.of(node), node.meta["val"]
    windows = pool.windows(torch.arange(X.numel()).reshape(X.shape))
    outside = windows == PADDING
    elements = X.flatten()[windows.clamp(min=0)]
    if pool.is_max:
        expected = elements.where(~outside, -torch.inf).amax(-1)
    else:
        count = windows.shape[-1] if pool.counts_padding else (~outside).sum(-1)
        expected = elements.where(~outside, 0).sum(-1) / count
    torch.testing.assert_close(val if isinstance(val, Tensor) else val[0], expected)


@pytest.mark.parametrize(
    ("op", "given"),
    [
        (ATEN.layer_norm.default, ([7, 6],)),
        (ATEN.group_norm.default, (3,)),
        (ATEN.instance_norm.default, (None, None, None, None, True, 0.1, 1e-12, False)),
        (ATEN._native_batch_norm_legit.no_stats, (None, None, True, 0.1, 1e-12)),
        (ATEN.rms_norm.default, ([6], None, 1e-12)),
    ],
)
def test_a_norm_ignores_what_it_is_said_to_ignore(op, given):
    x = torch.randn(X.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    norm = Norm.of(node_of(op, x, *given))
    slices = torch.empty(norm.view, dtype=torch.float64)
    each = slices.sum(norm.dims, keepdim=True).uniform_(1, 2, generator=torch.Generator().manual_seed(1))
    moved = (x.reshape(norm.view) * each + (each if norm.centred else 0)).reshape(x.shape)
    before, after = (out if isinstance(out, Tensor) else out[0] for out in (op(x, *given), op(moved, *given)))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)  # the eps of layer_norm and group_norm: 1e-5


def test_running_statistics_are_no_norm():
    statistics = (torch.zeros(3), torch.ones(3))
    assert Norm.of(node_of(ATEN.instance_norm.default, X, None, None, *statistics, False, 0.1, 1e-5, False)) is None


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_variables_are_padded_as_their_tensor(mode):
    ids = torch.arange(1, 1 + X.numel()).reshape(X.shape)
    node = node_of(ATEN.pad.default, X, [1, 2, 2, 0], mode)
    expected = torch.nn.functional.pad(ids.double(), [1, 2, 2, 0], mode=mode).long()
    assert torch.equal(move(node, [ids]), expected)
    assert Padding.of(node).puts_zeros == (mode == "constant")


def test_a_movement_by_a_tensor_needs_its_numbers():
    repeats = torch.tensor([1, 0, 2])
    node = node_of(ATEN.repeat_interleave.self_Tensor, X, repeats, 1)
    ids = torch.arange(X.numel()).reshape(X.shape)
    with pytest.raises(TypeError, match="not known"):
        move(node, [ids])
    moved = move(node, [ids], {node.args[1]: repeats})
    assert torch.equal(moved, ids[:, [0, 2, 2]])
