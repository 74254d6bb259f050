"""TF32 emulated: against its definition in exact numbers, and float64 products of operands rounded by that."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from neuralmech.verification.conditions import condition
from neuralmech.verification.precision import PRECISIONS
from neuralmech.verification.probe import Probe
from neuralmech.verification.tf32 import Tf32Products, round_to_tf32
from neuralmech.verification.verify import verify

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TOP = float(np.finfo(np.float32).max)
TINY = 2.0**-149


def nearest(x):
    """The multiple of the step 2^(exponent − 10) nearest to x, ties away from zero; float64 holds all of it."""
    if not math.isfinite(x):
        return x
    exponent = max(math.frexp(x)[1] - 1, -126)
    step = 2.0 ** (exponent - 10)
    size = math.floor(abs(x) / step + 0.5) * step
    return math.copysign(math.inf if size >= 2.0**128 else size, x)


def exactly(x):
    """Tensor in float64, every element rounded by definition."""
    return torch.tensor([nearest(v) for v in x.detach().flatten().tolist()], dtype=torch.float64).view(x.shape)


@given(st.floats(width=32, allow_nan=False, allow_subnormal=True))
@example(1 + 2**-11)
@example(-1 - 2**-11)
@example(1 + 2**-11 - 2**-23)
@example(1 + 3 * 2**-11)
@example(2 - 2**-12)
@example(TOP)
@example(-TOP)
@example(math.inf)
@example(-math.inf)
@example(-0.0)
@example(TINY)
@example(2.0**-137)
@example(2.0**-126 - TINY)
def test_rounding_is_to_the_nearest_ties_away_from_zero(x):
    once = round_to_tf32(torch.tensor([x], dtype=torch.float32))
    assert float(once) == nearest(x)
    assert math.copysign(1, float(once)) == math.copysign(1, x)
    assert torch.equal(round_to_tf32(once), once)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0x7FFFFFFF, -1, -0x7FFFFF])
def test_no_nan_is_rounded_to_a_number(bits):
    x = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    assert x.isnan().all()
    assert round_to_tf32(x).isnan().all()


def test_rounding_keeps_views_and_their_tensors():
    x = torch.randn(6, 4).T[::2]
    before = x.clone()
    assert torch.equal(round_to_tf32(x).double(), exactly(x))
    assert torch.equal(x, before)


PRODUCTS = {
    "mm": (torch.mm, (5, 40), (40, 3)),
    "bmm": (torch.bmm, (2, 5, 40), (2, 40, 3)),
    "matmul": (torch.matmul, (2, 5, 40), (40, 3)),
    "linear": (F.linear, (5, 40), (3, 40), (3,)),
    "linear per token": (F.linear, (2, 5, 40), (3, 40), (3,)),
    "baddbmm": (lambda a, b, c: torch.baddbmm(c, a, b), (2, 5, 40), (2, 40, 3), (2, 5, 3)),
    "addbmm": (lambda a, b, c: torch.addbmm(c, a, b), (2, 5, 40), (2, 40, 3), (5, 3)),
    "einsum": (lambda a, b: torch.einsum("ij,jk->ik", a, b), (5, 40), (40, 3)),
    "conv1d": (F.conv1d, (2, 4, 9), (3, 4, 3), (3,)),
    "conv2d": (lambda a, b, c: F.conv2d(a, b, c, padding=1, stride=2), (2, 4, 9, 9), (3, 4, 3, 3), (3,)),
    "conv3d": (F.conv3d, (2, 2, 5, 5, 5), (3, 2, 3, 3, 3), (3,)),
    "grouped": (lambda a, b, c: F.conv2d(a, b, c, groups=2), (2, 4, 9, 9), (6, 2, 3, 3), (6,)),
    "transposed": (F.conv_transpose2d, (2, 4, 5, 5), (4, 3, 3, 3), (3,)),
}


def close(found, expected, terms):
    """Float32 adds up: every term may round once, by 2⁻²⁴; rounded operands differ by 2⁻¹³ of the result or more."""
    assert found.dtype == torch.float32
    assert (found.detach().double() - expected.detach()).norm() <= terms * 2**-24 * expected.detach().norm()


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_and_their_gradients_are_those_of_rounded_operands(name):
    function, *shapes = PRODUCTS[name]
    generator = torch.Generator().manual_seed(0)
    operands = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    with Tf32Products():
        out = function(*operands)
        slope = torch.randn(out.shape, generator=generator)
        found = torch.autograd.grad(out, operands, slope)
    twins = [exactly(x).requires_grad_() for x in operands[:2]]
    added = [x.detach().double().requires_grad_() for x in operands[2:]]
    expected = function(*twins, *added)
    close(out, expected, 54)
    unrounded = function(*(x.detach().double() for x in operands))
    assert (unrounded - expected.detach()).norm() > 2**-13 * unrounded.norm()
    for g, e in zip(found, torch.autograd.grad(expected, twins, exactly(slope), retain_graph=True), strict=False):
        close(g, e, 200)
    for g, e in zip(found[2:], torch.autograd.grad(expected, added, slope.double()) if added else (), strict=True):
        close(g, e, 200)


def test_second_derivatives_are_products_of_rounded_operands():
    """⟨∂_A⟨δ, AB⟩, U⟩ = ⟨δBᵀ, U⟩, whose slopes are Uᵀδ by B and UB by δ; of a convolution the weight's likewise."""
    generator = torch.Generator().manual_seed(0)
    a, b, slope, u = (torch.randn(s, generator=generator) for s in ((5, 40), (40, 3), (5, 3), (5, 40)))
    image, filters, other = (torch.randn(s, generator=generator) for s in ((2, 4, 9, 9), (3, 4, 3, 3), (2, 4, 9, 9)))
    for x in (a, b, slope, image, filters):
        x.requires_grad_()
    with Tf32Products():
        (first,) = torch.autograd.grad(a @ b, a, slope, create_graph=True)
        by_b, by_slope = torch.autograd.grad(first, (b, slope), u)
        out = F.conv2d(image, filters)
        back = torch.randn(out.shape, generator=generator)
        (first,) = torch.autograd.grad(out, image, back, create_graph=True)
        (by_filters,) = torch.autograd.grad(first, filters, other)
    close(by_b, exactly(u).T @ exactly(slope), 40)
    close(by_slope, exactly(u) @ exactly(b), 40)
    close(by_filters, nn.grad.conv2d_weight(exactly(other), filters.shape, exactly(back)), 200)


def test_other_types_and_other_operations_are_left_alone():
    x, y = torch.rand(8, 8), torch.rand(8, 8)
    wide = x.double() @ y.double(), x * y, x.exp(), x.mv(y[0])
    with Tf32Products():
        inside = x.double() @ y.double(), x * y, x.exp(), x.mv(y[0])
    assert all(torch.equal(a, b) for a, b in zip(wide, inside, strict=True))


def balanced():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3, bias=False))


BATCH = torch.randn(64, 8, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 3


def logits(model, factor):
    """Of the net with its hidden layer times `factor`, the next one divided by it."""
    moved = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3, bias=False))
    with torch.no_grad(), Tf32Products():
        for there, here, power in zip(moved.parameters(), model.parameters(), (1, 1, -1), strict=True):
            there.copy_((here.double() * factor**power).float())
        return moved(BATCH[0]).double()


def test_a_power_of_two_is_a_symmetry_of_tf32_and_no_other_factor():
    model = balanced()
    start = logits(model, 1.0)
    for factor in (2.0, 0.25, 2.0**20):
        assert torch.equal(logits(model, factor), start)
    for factor in (1.1, math.e, 0.3):
        change = float((logits(model, factor) - start).norm() / start.norm())
        assert 2**-13 < change < 2**-10


def test_the_amount_in_the_table_is_that_of_the_rounded_gradient():
    """Both layers' gradients by hand in float64, every factor of a product rounded: ⟨g, Mθ⟩ is what is left."""
    model = balanced()
    row = verify(model, *BATCH, conditions=("fp32", "tf32")).table.set_index("family").loc["rescale"]
    x, y = BATCH
    w, b, v = (p.detach().double() for p in model.parameters())
    before = exactly(x) @ exactly(w.float()).T + b
    hidden = exactly(before.relu().float())
    slope = exactly((((hidden @ exactly(v.float()).T).softmax(1) - F.one_hot(y)) / len(y)).float())
    by_v = slope.T @ hidden
    by_before = (slope @ exactly(v.float())) * (before > 0)
    by_w, by_b = exactly(by_before.float()).T @ exactly(x), by_before.sum(0)
    size = math.sqrt(sum(float(g.square().sum()) for g in (by_w, by_b, by_v)))
    along = (by_w * w).sum(1) + by_b * b - (by_v * v).sum(0)
    lengths = (w.square().sum(1) + b.square() + v.square().sum(0)).sqrt()
    expected = float((along.abs() / lengths).max()) / size
    assert np.isclose(row["tf32_gradient"], expected, rtol=0.02)  # float32 adds up at 1e-8, this is 1e-5
    assert row["fp32_gradient"] < row["tf32_gradient"] / 30
    assert row["tf32_cause"] == "TF32 products (emulated)"
    assert row["cause"].endswith("; tf32: TF32 products (emulated)")


def test_hessian_vector_products_are_rounded_too():
    """A shift v of all classes moves no δ; it moves W₁'s gradient by (δv ⊙ relu′)ᵀx, where Σδ = 0 but for rounding."""
    model = balanced()
    x, y = BATCH
    probe = Probe(condition("tf32", model, (x,)), y, "cross_entropy", 0)
    direction = torch.cat([torch.zeros(16 * 8 + 16), torch.eye(16)[0].repeat(3)])
    found = probe._hessian(direction)
    w, b, v = (p.detach().double() for p in model.parameters())
    before = exactly(x) @ exactly(w.float()).T + b
    logits = exactly(before.relu().float()) @ exactly(v.float()).T
    slope = exactly(((logits.softmax(1) - F.one_hot(y)) / len(y)).float())
    moved = torch.zeros(64, 16, dtype=torch.float64)
    moved[:, 0] = slope.sum(1) * (before[:, 0] > 0)
    expected = torch.cat([(exactly(moved.float()).T @ exactly(x)).flatten(), moved.sum(0)])
    assert float((found[: 16 * 9].double() - expected).norm()) < 0.02 * float(expected.norm())  # as above
    assert float(found.norm()) > 1e-5 * probe.stiffness * float(direction.norm())


def test_own_precision_may_be_tf32():
    table = verify(balanced(), *BATCH, conditions=("own", "tf32"), precision="tf32").table
    assert (table["own_gradient"] == table["tf32_gradient"]).all()
    assert "TF32 products (emulated)" in set(table["own_cause"])


@CUDA
def test_it_is_what_a_gpu_computes():
    x, y = torch.randn(512, 512, device="cuda"), torch.randn(512, 512, device="cuda")
    device = x.device
    with PRECISIONS["tf32"].matrix_units(device):
        units = (x @ y).double()
    with PRECISIONS["fp32"].matrix_units(device):
        plain = (x @ y).double()
        with Tf32Products():
            emulated = (x @ y).double()
    assert float((emulated - units).norm()) < float((plain - units).norm()) / 10
