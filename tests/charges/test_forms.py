"""Compiled and eager evaluation of the charges agree, and both agree with dense generators."""

import numpy as np
import pytest
import torch
from torch import nn

from definitions import assert_tracked
from nets_tracked import NETS
from neuralmech.charges.forms import Forms
from neuralmech.charges.step import FORMS, MAIN, Step
from neuralmech.discovery.discover import find_symmetries
from neuralmech.symmetry.layout import Layout


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETS)
def test_both_ways_are_the_definitions(name, dtype):
    torch.manual_seed(0)
    build, batch = NETS[name]
    model = build().train()
    assert_tracked(find_symmetries(model, batch()), model, dtype, tuple(FORMS))


def test_a_number_that_is_not_finite_shows_in_its_charges():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    found = find_symmetries(model, torch.randn(2, 4))
    layout = Layout.by_shape(found.shapes)
    for poison in (float("nan"), float("inf")):
        vector = torch.ones(layout.size)
        vector[layout.offsets["0.weight"]] = poison
        forms = Forms(found.families, layout, torch.device("cpu"), MAIN)
        out = torch.zeros(4, forms.width, dtype=torch.float64)
        forms.evaluate(Step(vector, vector, vector, 1.0), out)
        assert not np.isfinite(out[0, forms.columns["rescale"]].numpy()).all()
