"""Kinds of nets on which discovery may be wrong, against gradients and finite transformations."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from finite import CHANGED, largest_change
from nets_crashes import SINGLE
from nets_kinds import KINDS
from nets_parts import AB, Net
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from neuralmech.verification.epsilon import WithoutEpsilon
from neuralmech.verification.precision import float64_throughout
from oracle import check

REFUSED = {
    *(n for n in KINDS if n.startswith(("choosing: random: numpy", "choosing: random: python"))),
    "arguments: BatchNorm with a plain average",
    "crashes: cond",
    "crashes: grad inside",
}
QUICK = 12  # every so many nets are in the quick suite, the others in the slow one


@contextmanager
def exact():
    """Without the small numbers and the casts up to which claims hold."""
    with WithoutEpsilon(), float64_throughout():
        yield


def _marks(at, kind):
    return [pytest.mark.slow] if kind.slow or at % QUICK else []


@pytest.mark.parametrize("name", [pytest.param(n, marks=_marks(i, k)) for i, (n, k) in enumerate(KINDS.items())])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
@pytest.mark.filterwarnings("ignore:index_reduce.. is in beta")
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_claims_hold_and_nothing_that_is_expected_is_missing(name):
    kind = KINDS[name]
    model = kind.build().train()
    batch = kind.inputs(torch.Generator().manual_seed(0))
    if name in REFUSED:
        with pytest.raises(UserError) as caught:
            find_symmetries(model, batch, loss=kind.loss)
        assert "\n" not in str(caught.value)
        return
    found = find_symmetries(model, batch, loss=kind.loss)
    with exact() if found.approximations else nullcontext():  # what is named there is no eps of a norm
        check(model, kind.inputs, kind.loss, complete=kind.complete, found=found)
        assert largest_change(found, model, kind.inputs, kind.loss) < CHANGED


@pytest.mark.parametrize(
    ("forward", "named"),
    [
        (lambda s, x: s.b(torch.sqrt(torch.relu(s.a(x)) + 1e-3)), "0.001 is added"),
        (lambda s, x: s.b(s.a(x) / s.a(x).norm(dim=1, keepdim=True).clamp(min=1e-3)), "0.001 is the least value"),
        (lambda s, x: s.b(torch.nn.functional.layer_norm(s.a(x), (4,), eps=0.01)), "eps of 0.01"),
        (lambda s, x: s.b(s.a(x).to(torch.bfloat16).float()), "bfloat16 at"),
    ],
)
def test_what_holds_up_to_a_small_number_is_named(forward, named):
    torch.manual_seed(0)
    found = find_symmetries(Net(forward, **AB), torch.randn(8, 3))
    assert len(found.approximations) == 1
    assert found.approximations[0].startswith(named)
    assert ".py:" in found.approximations[0]


def test_constants_that_are_no_eps_end_a_symmetry():
    torch.manual_seed(0)
    floor = find_symmetries(Net(lambda s, x: s.b(s.a(x).clamp(min=1e-3)), **AB), torch.randn(8, 3))
    added = find_symmetries(Net(lambda s, x: s.b(torch.relu(s.a(x)) + 1e-3), **AB), torch.randn(8, 3))
    assert "rescale" not in floor.sites
    assert "rescale" not in added.sites


@pytest.mark.parametrize("name", SINGLE)
def test_outputs_that_are_no_logits_are_named_in_one_line(name):
    torch.manual_seed(0)
    with pytest.raises(UserError) as caught:
        find_symmetries(Net(SINGLE[name], **AB), torch.randn(8, 3))
    assert "\n" not in str(caught.value)
