"""Compiled and eager evaluation of the charges agree, and both agree with dense generators."""

import numpy as np
import pytest
import torch
from torch import nn

from nets_tracked import NETS
from neuralmech.symmetry.discover import find_symmetries
from neuralmech.symmetry.forms import Forms
from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.step import LINEAR, QUADRATIC, Step


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETS)
def test_both_ways_are_the_definitions(name, dtype):
    torch.manual_seed(0)
    build, batch = NETS[name]
    model = build().train()
    found = find_symmetries(model, batch())
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    layout = Layout.by_shape({n: tuple(p.shape) for n, p in trained.items()})
    signals = tuple(QUADRATIC)
    vectors = torch.randn(6, layout.size, dtype=dtype)
    step = Step(*vectors[:3], 10.0, vectors[3], (vectors[4], vectors[5]), batch_size=32)
    outs = []
    for compiled in (True, False):
        forms = Forms(found.families, layout, torch.device("cpu"), signals, compiled=compiled)
        out = torch.zeros(len(signals), forms.width, dtype=torch.float64)
        forms.evaluate(step, out)
        outs.append({family: out[:, columns].numpy() for family, columns in forms.columns.items()})
    in_order = np.concatenate([
        np.arange(layout.offsets[n], layout.offsets[n] + p.numel()) if n in trained else np.full(p.numel(), -1)
        for n, p in model.named_parameters()
    ])  # fmt: skip
    for family, generators in found.generators().items():
        for i, signal in enumerate(signals):
            dense = {n: np.append(step.vector(n).numpy(), 0.0)[in_order] for n in {*QUADRATIC[signal]}}
            if family == "translation":
                truth = generators @ dense[LINEAR[signal]] if signal in LINEAR else np.zeros(generators.shape[0])
            else:
                x, y = (dense[n] for n in QUADRATIC[signal])
                truth = generators @ (x * y)
            for out in outs:
                np.testing.assert_allclose(out[family][i], truth, rtol=1e-12, atol=1e-10)


def test_a_number_that_is_not_finite_shows_in_its_charges():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    found = find_symmetries(model, torch.randn(2, 4))
    layout = Layout.by_shape(found.shapes)
    for poison in (float("nan"), float("inf")):
        vector = torch.ones(layout.size)
        vector[layout.offsets["0.weight"]] = poison
        forms = Forms(found.families, layout, torch.device("cpu"), tuple(QUADRATIC)[:4])
        out = torch.zeros(4, forms.width, dtype=torch.float64)
        forms.evaluate(Step(vector, vector, vector, 1.0), out)
        assert not np.isfinite(out[0, forms.columns["rescale"]].numpy()).all()
