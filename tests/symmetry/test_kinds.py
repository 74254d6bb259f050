"""Kinds of nets on which discovery may be wrong, against gradients and finite transformations."""

import pytest
import torch

from finite import CHANGED, largest_change
from nets_crashes import SINGLE
from nets_kinds import KINDS
from nets_parts import AB, Net
from neuralmech.errors import UserError
from neuralmech.symmetry.discover import find_symmetries
from oracle import check


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if k.slow else []) for n, k in KINDS.items()]
)
def test_claims_hold_and_nothing_that_is_expected_is_missing(name):
    kind = KINDS[name]
    model = kind.build().train()
    found = find_symmetries(model, kind.inputs(torch.Generator().manual_seed(0)), loss=kind.loss)
    check(model, kind.inputs, kind.loss, complete=kind.complete, found=found)
    assert largest_change(found, model, kind.inputs, kind.loss) < CHANGED


@pytest.mark.parametrize("name", SINGLE)
def test_outputs_that_are_no_logits_are_named_in_one_line(name):
    torch.manual_seed(0)
    with pytest.raises(UserError) as caught:
        find_symmetries(Net(SINGLE[name], **AB), torch.randn(8, 3))
    assert "\n" not in str(caught.value)
