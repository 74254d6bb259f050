"""What targets are to each loss: checked before a run, and kept in the type that the loss takes."""

import sys

import pytest
import torch
from torch.utils.data import Dataset

from neuralmech.config import resolve
from neuralmech.data import load_data, training_batches
from neuralmech.data.custom import CustomOptions
from neuralmech.data.parts import Items
from neuralmech.errors import UserError
from neuralmech.losses import IGNORED, CrossEntropy
from neuralmech.training.setup import prepare

LABELS = torch.arange(12) % 3
HOT = torch.eye(3, dtype=torch.int64)[LABELS]
SOFT = torch.softmax(torch.arange(36.0).reshape(12, 3).sin(), -1)
TARGETS = {
    "labels": LABELS,
    "bytes": LABELS.to(torch.uint8),
    "hot": HOT,
    "half": SOFT.half(),
    "soft": SOFT,
    "numbers": SOFT[:, 0] * 10,
    "bad_numbers": torch.where(LABELS == 2, torch.nan, SOFT[:, 0]),
    "bad_soft": SOFT + torch.eye(12)[:, :3],
    "real_labels": LABELS.float(),
    "too_large": torch.where(torch.arange(12) == 7, 9, LABELS),
    "some_ignored": torch.where(LABELS == 2, IGNORED, LABELS),
    "columns": LABELS.unsqueeze(1),
}


class Rows(Dataset):
    """Read item by item."""

    def __init__(self, y):
        self.y = y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return torch.full((5,), float(i)), self.y[i]


def tensors(what):
    x, y = torch.randn(12, 5), TARGETS[what]
    return x, y, x, y


def items(what):
    return Rows(TARGETS[what]), Rows(TARGETS[what])


def one_bad_item(what):
    return Rows(TARGETS[what]), Rows(torch.where(torch.arange(12) == 7, 9, LABELS))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_targets", sys.modules[__name__])


def load(what, loss, name="tensors", **more):
    data = {"_target_": f"own_targets.{name}", "what": what, "batch_size": 4, **more}
    config = resolve(
        {"model": {"name": "mlp"}, "data": data, "loss": {"name": loss} if isinstance(loss, str) else loss}
    )
    return load_data(config.data, config.loss)


@pytest.mark.parametrize("name", ["tensors", "items"])
@pytest.mark.parametrize(
    ("what", "loss", "classes", "dtype", "has_labels"),
    [
        ("labels", "cross_entropy", 3, torch.int64, True),
        ("bytes", "cross_entropy", 3, torch.int64, True),
        ("hot", "cross_entropy", 3, torch.float32, False),
        ("half", "cross_entropy", 3, torch.float16, False),
        ("soft", "cross_entropy", 3, torch.float32, False),
        ("numbers", "mse", 1, torch.float32, False),
        ("soft", "mse", 3, torch.float32, False),
        ("labels", "mse", 3, torch.int64, True),
        ("soft", "bce", 3, torch.float32, False),
        ("hot", "bce", 3, torch.float32, False),
    ],
)
def test_targets_are_kept_as_the_loss_takes_them(name, what, loss, classes, dtype, has_labels):
    data = load(what, loss, name, **({"classes": 3} if has_labels else {}))
    assert isinstance(data.train, Items) == (name == "items")
    for part in (data.train, data.test):
        y = part[torch.arange(12).numpy()][1]
        assert y.dtype == dtype
        assert torch.equal(y.double(), TARGETS[what].double())
    assert (data.classes, data.has_labels) == (classes, has_labels)


@pytest.mark.parametrize("name", ["tensors", "items"])
@pytest.mark.parametrize(
    ("what", "loss", "message"),
    [
        (
            "real_labels",
            "cross_entropy",
            r"targets are real numbers.*give integers \(y.long\(\)\), or .*loss=mse or bce",
        ),
        ("numbers", "cross_entropy", "targets are real numbers"),
        ("bad_soft", "cross_entropy", "is no row of probabilities .*look at (item 0 of the )?training"),
        ("bad_numbers", "mse", "gives the target nan, which is not finite; look at .*2"),
        ("numbers", "bce", "is no number from 0 to 1, as loss=bce takes them; take cross_entropy for class indices"),
        ("too_large", "cross_entropy", r"gives the label 9; labels go from 0 to 2 \(data.classes\): look at .*7"),
    ],
)
def test_targets_that_a_loss_cannot_take_are_named(name, what, loss, message):
    more = {"classes": 3} if what == "too_large" else {}

    def read():
        load(what, loss, name, **more).train[torch.arange(12).numpy()]

    with pytest.raises(UserError, match=r"^data._target_=own_targets.*" + message) as error:
        read()
    assert "\n" not in str(error.value)


def test_a_bad_target_among_items_is_named_when_it_is_read():
    data = load("labels", "cross_entropy", "one_bad_item", classes=3)
    with pytest.raises(UserError, match=r"the label 9; labels go from 0 to 2 .*: look at item 7 of the held-out set"):
        list(data.held_out(4))


def test_ignored_targets():
    data = load("some_ignored", "cross_entropy")
    assert data.classes == 2
    chosen = load("labels", {"name": "cross_entropy", "ignore_index": 1})
    assert torch.equal(chosen.train.y, torch.where(LABELS == 1, IGNORED, LABELS))
    assert CrossEntropy(ignore_index=1).weight_of(chosen.train.y) == 8


def test_label_noise_is_for_labels():
    options = CustomOptions(batch_size=4, label_noise=0.5)
    assert training_batches(load("labels", "cross_entropy"), options, 0)(0)[1].dtype == torch.int64
    with pytest.raises(UserError, match=r"data\.label_noise draws class indices"):
        training_batches(load("soft", "cross_entropy"), options, 0)


def test_labels_in_columns_are_refused_when_the_model_is_there():
    data = {"_target_": "own_targets.tensors", "what": "columns", "batch_size": 4, "classes": 3}
    with pytest.raises(UserError, match=r"class indices of shape \(2, 1\).*give y.squeeze\(-1\)"):
        prepare(resolve({"model": {"name": "mlp"}, "data": data, "device": "cpu"}))
