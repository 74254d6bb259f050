"""Nets whose symmetries were counted numerically: as many are found, and each holds."""

import pytest
import torch

from finite import CHANGED, largest_change
from nets_counted import COUNTED, DIMENSIONS
from neuralmech.discovery.discover import find_symmetries
from oracle import check


@pytest.mark.parametrize("name", COUNTED)
def test_as_many_are_found_as_there_are(name):
    kind = COUNTED[name]
    model = kind.build().train()
    found = find_symmetries(model, kind.inputs(torch.Generator().manual_seed(0)))
    diagonal, translation = check(model, kind.inputs, complete=kind.complete, found=found)
    unread = sum(p.numel() for n, p in model.named_parameters() if found.uncovered.get(n, "").startswith("no gradient"))
    assert largest_change(found, model, kind.inputs) < CHANGED
    if kind.complete:
        assert (diagonal, translation + unread) == DIMENSIONS[name]
    else:
        assert diagonal <= DIMENSIONS[name][0]
        assert translation <= DIMENSIONS[name][1]
