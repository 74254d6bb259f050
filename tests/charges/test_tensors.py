"""Forms with S = 1 of whole parameter tensors, on every backend of the CPU."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nets import mlp
from neuralmech.charges.cpu import Cpu, CpuMover
from neuralmech.charges.cpu_adam import SIGNALS as ADAMS
from neuralmech.charges.forms import Forms
from neuralmech.charges.plan import of_tensors, plan_of
from neuralmech.charges.reference import Reference
from neuralmech.charges.step import MAIN, Moments, Motion, Step, Taken
from neuralmech.discovery.discover import find_symmetries
from neuralmech.symmetry.layout import Layout
from plans import SHAPES, parts_of

CPU = torch.device("cpu")
ANY = st.lists(
    st.one_of(SHAPES, st.just(()), st.just((0, 3)), st.just((3, 0)), st.just((1, 1))), min_size=1, max_size=5
)


def squares(before, after, gradient, rate, layout):
    u = (before.double() - after.double()) * rate
    of = (before.double() ** 2, u**2, gradient.double() ** 2, before.double() * gradient.double())
    return torch.stack([torch.stack([p.sum() for p in parts_of(x, layout)]) for x in of])


@settings(deadline=None, max_examples=60)
@given(shapes=ANY, dtype=st.sampled_from([torch.float32, torch.float64]), seed=st.integers(0, 99))
def test_tensors_of_any_shape(shapes, dtype, seed):
    """Of parameters in no charge: evaluated, under Adam, in the pass that moves, and in one that follows."""
    layout = Layout.by_shape({f"p{i}": shape for i, shape in enumerate(shapes)})
    theta, after, g = torch.randn(3, layout.size, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    step, plan = Step(theta, after, g, 7.0), plan_of([of_tensors([], layout)], [], layout)
    wanted = squares(theta, after, g, 7.0, layout)
    for make in (Reference, Cpu):
        out = torch.full((4, len(shapes)), math.nan, dtype=torch.float64)
        make(plan, MAIN, CPU).evaluate(step, out)
        torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
    out = torch.full((len(ADAMS), len(shapes)), math.nan, dtype=torch.float64)
    Cpu(plan, ADAMS, CPU).evaluate(step._replace(moments=Moments(g, g.square(), 1.0, 1.0, 1e-8)), out)
    torch.testing.assert_close(out[:4], wanted, rtol=1e-12, atol=1e-12)
    here, out = theta.clone(), torch.full((4, len(shapes)), math.nan, dtype=torch.float64)
    CpuMover(plan, here).measure(Taken(parts_of(after, layout), parts_of(g, layout), 1 / 7.0), out)
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(here, after)
    here, out = theta.clone(), torch.full((4, len(shapes)), math.nan, dtype=torch.float64)
    CpuMover(plan, here).measure(Motion(parts_of(g, layout), None, 0.1, 0.0, 0.0), out)
    torch.testing.assert_close(out, squares(theta, here, g, 10.0, layout), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("full", [0, 16])
def test_charges_beside_them_are_what_they_are_alone(full):
    """To the last bit, of all families, large matrices among them, which are put elsewhere first."""
    found = find_symmetries(mlp(4, 6, 5, 3, act=nn.Identity), torch.randn(2, 4))
    families, layout = found.families, Layout.by_shape(found.shapes)
    vectors = torch.randn(3, layout.size, generator=torch.Generator().manual_seed(0))
    beside, alone = (Forms(families, layout, CPU, MAIN, full=full, tensors=of) for of in (True, False))
    both, only = (torch.zeros(4, of.width, dtype=torch.float64) for of in (beside, alone))
    beside.evaluate(Step(*vectors, 7.0), both)
    alone.evaluate(Step(*vectors, 7.0), only)
    assert "linear" in families
    assert torch.equal(both[:, beside.tensors :], only)
    torch.testing.assert_close(both[:, : beside.tensors], squares(*vectors, 7.0, layout), rtol=1e-12, atol=1e-12)
