"""Discovery and verification with each loss, with losses of the user's own, and with models that return more."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralmech import SymmetryGroup, find_symmetries, verify
from neuralmech.errors import UserError
from neuralmech.losses import BinaryCrossEntropy, CrossEntropy
from neuralmech.outputs import output_of
from neuralmech.verification.claims import believe

LABELS = torch.arange(6) % 3
SOFT = torch.softmax(torch.arange(18.0).reshape(6, 3).sin(), -1)
RESCALE = {"rescale": {"0 -> 2": 4}}
TRANSLATION = {"translation": {"2.weight": 4, "2.bias": 1}}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def inputs():
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(1))


def focal(outputs, targets, gamma=2.0):
    log_p = F.log_softmax(outputs, -1).gather(-1, targets.unsqueeze(-1))
    return -((1 - log_p.exp()) ** gamma * log_p).mean()


def cosine(outputs, targets):
    """Ignores the scale of the outputs, and no shift."""
    return 1 - F.cosine_similarity(outputs, F.one_hot(targets, 3).to(outputs.dtype)).mean()


def centred(outputs, targets):
    """Ignores a shift of each sample's outputs, without a softmax."""
    return (outputs - outputs.mean(-1, keepdim=True)).sub(targets).square().mean()


def branching(outputs, targets):
    loss = F.cross_entropy(outputs, targets)
    return loss if loss > 0.1 else loss * 0.5


@pytest.mark.parametrize(
    ("loss", "targets", "expected"),
    [
        ("cross_entropy", LABELS, TRANSLATION | RESCALE),
        (CrossEntropy(label_smoothing=0.1, weight=[1.0, 2.0, 3.0], ignore_index=2), LABELS, TRANSLATION | RESCALE),
        (CrossEntropy(label_smoothing=0.1, weight=[1.0, 2.0, 3.0]), SOFT, TRANSLATION | RESCALE),
        ("mse", SOFT, RESCALE),
        ("mse", LABELS, RESCALE),
        (BinaryCrossEntropy(pos_weight=[1.0, 2.0, 3.0]), SOFT, RESCALE),
        (F.cross_entropy, LABELS, TRANSLATION | RESCALE),
        (nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1), LABELS, TRANSLATION | RESCALE),
        (focal, LABELS, TRANSLATION | RESCALE),
        (centred, SOFT, TRANSLATION | RESCALE),
        (F.l1_loss, SOFT, RESCALE),
        (branching, LABELS, RESCALE),  # cannot be traced: nothing is assumed
    ],
)
def test_what_a_loss_ignores_is_found_and_holds(loss, targets, expected):
    model, x = net(), inputs()
    found = find_symmetries(model, x, loss, targets)
    assert found.sites == expected
    assert list(found.shapes) == [name for name, _ in model.named_parameters()]
    checked = verify(model, x, targets, found, loss)
    assert checked.table["holds"].all()


def test_a_scale_that_a_loss_ignores_is_found():
    model, x = net(), inputs()
    found = find_symmetries(model, x, cosine, LABELS)
    assert set(found.families) == {"scale", "rescale"}
    assert verify(model, x, LABELS, found, cosine).table["holds"].all()
    assert set(find_symmetries(model, x, cosine).families) == {"rescale"}  # without targets nothing is assumed


def test_verify_uses_the_loss():
    """A translation of the outputs changes the squared error, and not the cross-entropy."""
    model, x = net(), inputs()
    claims = find_symmetries(model, x)
    assert verify(model, x, SOFT, claims).table["holds"].all()
    table = verify(model, x, SOFT, claims, "mse").table
    assert set(table.loc[~table["holds"].astype(bool), "family"]) == {"translation"}
    group = [SymmetryGroup("translation", "bias", {"2.bias": torch.ones(1, 3)})]
    assert believe(model, group, x, SOFT, focal_of_soft).sites == {"translation": {"bias": 1}}
    with pytest.raises(UserError, match="'bias' does not hold"):
        believe(model, group, x, SOFT, "mse")


def focal_of_soft(outputs, targets):
    return focal(outputs, targets.argmax(-1))


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        ("cross_entropy", LABELS.unsqueeze(1), r"give y.squeeze\(-1\)"),
        ("cross_entropy", LABELS + 1, "it has 3 outputs, and labels go up to 3"),
        ("cross_entropy", SOFT[:, :2], r"probabilities of shape \(6, 2\) do not go with outputs of shape \(6, 3\)"),
        (CrossEntropy(weight=[1.0, 2.0]), LABELS, "loss.weight has 2 numbers for 3 classes"),
        (BinaryCrossEntropy(pos_weight=[1.0, 2.0]), SOFT, "loss.pos_weight has 2 numbers for 3 outputs"),
        ("mse", SOFT[:, 0], r"loss=mse: targets of shape \(6,\)"),
        (lambda outputs, targets: outputs.detach().mean(), LABELS, "has no gradient"),
        (lambda outputs, targets: outputs.missing, LABELS, "raises AttributeError: .*test_with_loss.py:"),
    ],
)
def test_targets_that_do_not_go_with_the_outputs_are_named(loss, targets, message):
    with pytest.raises(UserError, match=message) as error:
        find_symmetries(net(), inputs(), loss, targets)
    assert "\n" not in str(error.value)


@dataclass
class Output:
    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden: tuple


Several = namedtuple("Several", ["hidden", "logits"])
RETURNED = {
    "dict": lambda hidden, out: {"hidden": hidden, "logits": out},
    "dataclass": lambda hidden, out: Output(None, out, (hidden, hidden)),
    "named_tuple": lambda hidden, out: Several(hidden, out),
    "only_tensor": lambda hidden, out: (None, out, {"name": "x", "rows": torch.arange(3)}),
}


class Returning(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.first, self.second, self.how = nn.Linear(5, 4), nn.Linear(4, 3), how

    def forward(self, x):
        hidden = F.relu(self.first(x))
        return RETURNED[self.how](hidden, self.second(hidden))


@pytest.mark.parametrize("how", [h for h in RETURNED if h != "dataclass"])
def test_logits_are_taken_from_what_a_model_returns(how):
    model, x = Returning(how), inputs()
    found = find_symmetries(model, x, targets := "cross_entropy")
    assert found.sites == {"translation": {"second.weight": 4, "second.bias": 1}, "rescale": {"first -> second": 4}}
    assert verify(model, x, LABELS, found, targets).table["holds"].all()
    assert find_symmetries(model, x, focal, LABELS).sites == found.sites


def test_logits_of_a_dataclass():
    logits = torch.ones(2, 3)
    assert output_of(RETURNED["dataclass"](torch.zeros(2), logits)) is logits


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ((torch.zeros(2), torch.zeros(2)), "net returns a tuple of 2 tensors, and nothing says which one"),
        ({"a": torch.zeros(2), "b": [torch.zeros(2)]}, "a dict of 2 tensors"),
        (None, "a NoneType without a tensor"),
        ((torch.arange(3),), "a tuple without a tensor"),
    ],
)
def test_what_has_no_logits_is_refused(out, message):
    with pytest.raises(UserError, match=message):
        output_of(out, "net")


def test_a_model_without_parameters_is_refused():
    for model in (nn.Flatten(), net().requires_grad_(False)):
        with pytest.raises(UserError, match="has no parameter that is trained"):
            find_symmetries(model, inputs())
