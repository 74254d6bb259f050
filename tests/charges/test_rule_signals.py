"""What the laws of learning rules read: every form of every backend, and how far an update leans on generators."""

import numpy as np
import pytest
import torch

from definitions import assert_tracked
from nets_tracked import NETS
from neuralmech.charges.cpu_adam import SIGNALS as ADAMS
from neuralmech.charges.leaning import Leaning
from neuralmech.charges.step import FORMS, MAIN, Moments, Step
from neuralmech.discovery.discover import find_symmetries
from neuralmech.symmetry.layout import Layout


def with_one_rate(vectors):
    """The same with one learning rate."""
    return of_adam(vectors)._replace(ratio=None, shrink=None)


REST = tuple(name for name in FORMS if name not in (*MAIN, *ADAMS))


def of_adam(vectors):
    """A step under Adam with parameters in several groups."""
    theta, after, gradient, mean, ascent = vectors[:5]
    square, ratio, shrink = (v.abs() + 0.1 for v in vectors[5:8])
    moments = Moments(mean, square.to(theta.dtype), 1.7, 2.3, 1e-3)
    return Step(
        theta,
        after,
        gradient,
        10.0,
        vectors[8],
        moments,
        ratio.double(),
        shrink.double(),
        0.3,
        ascent,
        None,
        vectors[6].double(),
    )


@pytest.mark.parametrize("name", NETS)
def test_every_form_is_its_definition(name):
    build, inputs = NETS[name][:2]
    torch.manual_seed(0)
    model = build().train()
    found = find_symmetries(model, inputs())
    for signals in ((*MAIN, *ADAMS), (*MAIN, *ADAMS, *REST), (*MAIN, *REST)):  # Adam's have a pass of their own
        for step_of in (of_adam, with_one_rate):
            assert_tracked(found, model, signals=signals, step_of=step_of)


@pytest.mark.parametrize("name", ["residual", "residual_conv", "grouped"])
def test_leaning_is_a_cosine(name):
    """By the generators written out; the update along a generator leans on it by 1."""
    build, inputs = NETS[name][:2]
    torch.manual_seed(0)
    model = build().double().train()
    found = find_symmetries(model, inputs().double())
    families = {n: f for n, f in found.families.items() if n != "linear"}
    layout = Layout.by_shape({n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad})
    leaning = Leaning(families, layout, torch.device("cpu"))
    theta, update = torch.randn(2, layout.size, dtype=torch.float64)
    out = torch.zeros(leaning.count, dtype=torch.float64)
    leaning.evaluate(Step(theta, theta - 0.1 * update, theta, 10.0), out)
    order = np.concatenate(
        [np.arange(layout.offsets[n], layout.offsets[n] + p.numel()) for n, p in model.named_parameters()]
    )
    wanted, t, v = [], theta.numpy()[order], update.numpy()[order]
    for family in leaning.sites:
        generators = found.generators()[family]
        sites, size = np.array(families[family].sites), abs(generators)
        if family == "translation":
            work, product = generators @ v, (size @ np.ones_like(t)) * (size @ v**2)
        else:
            work, product = generators @ (t * v), (size @ t**2) * (size @ v**2)
        wanted += [np.sqrt((work[sites == s] ** 2).sum() / product[sites == s].sum()) for s in leaning.sites[family]]
    np.testing.assert_allclose(out.numpy(), wanted, rtol=1e-10)
    assert 0 <= out.min() <= out.max() <= 1
