import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralmech.errors import UserError
from neuralmech.losses import IGNORED, BinaryCrossEntropy, CrossEntropy, SquaredError, as_loss, loss_of

tally = CrossEntropy().tally


def by_hand(logits, targets):
    """−log softmax at the target, for (…, classes) logits."""
    probability = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return -probability.gather(-1, targets.unsqueeze(-1)).squeeze(-1).log()


def sample(*shape):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(shape[-1], shape[:-1], generator=generator)


def test_cross_entropy_of_samples_tokens_and_images():
    logits, targets = sample(6, 3)
    torch.testing.assert_close(loss_of(logits, targets), by_hand(logits, targets).mean())
    logits, targets = sample(6, 4, 3)  # more tokens than classes: no mistaking one for the other
    torch.testing.assert_close(loss_of(logits, targets), by_hand(logits, targets).mean())
    logits, targets = sample(2, 5, 4, 3)
    torch.testing.assert_close(loss_of(logits.movedim(-1, 1), targets), by_hand(logits, targets).mean())


def test_ignored_targets_do_not_count():
    logits, targets = sample(6, 4, 3)
    counted = torch.zeros(6, 4, dtype=torch.bool)
    counted[:, -1] = counted[2, 1] = True
    expected = by_hand(logits, targets)[counted]
    some = torch.where(counted, targets, IGNORED)
    torch.testing.assert_close(loss_of(logits, some), expected.mean())
    total, count, right, _ = tally(logits, some)
    assert total == pytest.approx(float(expected.sum()))
    assert right == int((logits.argmax(-1) == targets)[counted].sum())
    assert count == 7


def test_a_common_shift_is_ignored_whichever_targets_count():
    logits, targets = sample(6, 4, 3)
    targets[::2, 1] = IGNORED
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(logits, targets), logits)
    assert gradient.sum(-1).abs().max() <= 1e-16
    assert gradient.abs().max() > 1e-3


def test_squared_error():
    logits, _ = sample(6, 3)
    torch.testing.assert_close(loss_of(logits, logits + 2, "mse"), torch.tensor(4.0, dtype=torch.float64))


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.linspace(-3, 3, 4096).reshape(1024, 4).half()
    targets = torch.arange(1024) % 4
    total, count, right, _ = tally(logits, targets)
    assert total == pytest.approx(tally(logits.double(), targets)[0], rel=1e-6)
    assert (count, right) == tally(logits.double(), targets)[1:3]


WEIGHTS = [0.5, 2.0, 1.0]
LABELS = torch.tensor([0, 1, 2, 1, IGNORED, 0, 2, 1])
SOFT = torch.softmax(torch.arange(24.0, dtype=torch.float64).reshape(8, 3).sin(), -1)
NUMBERS = torch.arange(24.0, dtype=torch.float64).reshape(8, 3).cos() * 3
CHANCES = SOFT.clone().sqrt()
AS_PYTORCH = {  # name: loss, targets, and the criterion that people write
    "labels": (CrossEntropy(), LABELS, nn.CrossEntropyLoss()),
    "weights": (CrossEntropy(weight=WEIGHTS), LABELS, nn.CrossEntropyLoss(torch.tensor(WEIGHTS).double())),
    "smoothing": (CrossEntropy(label_smoothing=0.1), LABELS, nn.CrossEntropyLoss(label_smoothing=0.1)),
    "weights_smoothing": (
        CrossEntropy(label_smoothing=0.2, weight=WEIGHTS), LABELS,
        nn.CrossEntropyLoss(torch.tensor(WEIGHTS).double(), label_smoothing=0.2),
    ),
    "ignored": (CrossEntropy(ignore_index=1), LABELS[LABELS >= 0].repeat(2)[:8], nn.CrossEntropyLoss(ignore_index=1)),
    "ignored_weights": (
        CrossEntropy(ignore_index=1, weight=WEIGHTS), LABELS[LABELS >= 0].repeat(2)[:8],
        nn.CrossEntropyLoss(torch.tensor(WEIGHTS).double(), ignore_index=1),
    ),
    "soft": (CrossEntropy(), SOFT, nn.CrossEntropyLoss()),
    "soft_weights_smoothing": (
        CrossEntropy(label_smoothing=0.1, weight=WEIGHTS), SOFT,
        nn.CrossEntropyLoss(torch.tensor(WEIGHTS).double(), label_smoothing=0.1),
    ),
    "mse": (SquaredError(), NUMBERS, nn.MSELoss()),
    "bce": (BinaryCrossEntropy(), CHANCES, nn.BCEWithLogitsLoss()),
    "bce_weights": (
        BinaryCrossEntropy(pos_weight=WEIGHTS), CHANCES, nn.BCEWithLogitsLoss(pos_weight=torch.tensor(WEIGHTS).double())
    ),
}  # fmt: skip


@pytest.fixture(params=AS_PYTORCH)
def case(request):
    outputs = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return *AS_PYTORCH[request.param], outputs.requires_grad_()


def test_value_and_gradient_are_those_of_pytorch(case):
    loss, targets, criterion, outputs = case
    expected = criterion(outputs, targets)
    found = loss(outputs, targets)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    pair = [torch.autograd.grad(value, outputs)[0] for value in (found, expected)]
    torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-16)
    shift = pair[0].sum(-1).abs().max()
    assert (shift <= 1e-15) == loss.ignores_shift


@torch.no_grad()
def test_sums_over_unequal_batches_are_the_mean_over_all(case):
    """Batches of 5 and 3 with other numbers of targets that count, and of other classes."""
    loss, targets, criterion, outputs = case
    sums = [loss.tally(outputs[part], targets[part]) for part in (slice(5), slice(5, 8))]
    total, weight = (sum(getattr(s, name) for s in sums) for name in ("total", "weight"))
    assert total / weight == pytest.approx(float(criterion(outputs, targets)), rel=1e-14)
    parts = [targets[:5], targets[5:]]
    # what the gradient's noise goes by: the loss of all is the weighted mean of the parts'
    shares = [float(loss.weight_of(part)) for part in parts]
    values = [float(loss(outputs[part], targets[part])) for part in (slice(5), slice(5, 8))]
    mean = sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares)
    assert mean == pytest.approx(float(criterion(outputs, targets)), rel=1e-14)


def test_accuracy_is_of_what_has_one():
    logits, labels = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 2, 0]]), torch.tensor([0, 1, IGNORED])
    soft = torch.tensor([[0.6, 0.3, 0.1], [0.9, 0.1, 0.0], [0.2, 0.5, 0.3]])
    assert CrossEntropy().tally(logits, labels)[2:] == (2, 2)
    assert CrossEntropy().tally(logits, soft)[2:] == (2, 3)
    assert SquaredError().tally(logits, labels)[2:] == (2, 2)
    assert SquaredError().tally(logits, soft).judged == 0
    assert BinaryCrossEntropy().tally(logits - 1, (soft > 0.4).float())[2:] == (7, 9)
    assert as_loss(F.l1_loss).tally(logits, soft).judged == 0


def test_squared_error_of_class_indices_is_that_of_one_hot_vectors():
    outputs, labels = sample(6, 4, 3)
    hot = F.one_hot(labels, 3).double()
    torch.testing.assert_close(loss_of(outputs, labels, "mse"), F.mse_loss(outputs, hot))
    labels[0, :2] = IGNORED
    counted = labels != IGNORED
    torch.testing.assert_close(loss_of(outputs, labels, "mse"), F.mse_loss(outputs[counted], hot[counted]))


def test_probabilities_for_tokens_and_pixels():
    outputs, _ = sample(6, 4, 3)
    soft = torch.softmax(sample(6, 4, 3)[0].flip(0), -1)
    by_hand = -(soft * outputs.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(loss_of(outputs, soft), by_hand)
    pixels, wanted = (t.reshape(2, 3, 4, 3).movedim(-1, 1) for t in (outputs, soft))
    torch.testing.assert_close(loss_of(pixels, wanted), by_hand)
    assert CrossEntropy().weight_of(soft) == CrossEntropy().tally(pixels, wanted).weight == 24


def test_a_column_is_not_spread_against_a_row():
    """(8, 1) outputs with (8,) targets would be 64 differences in PyTorch."""
    outputs, targets = torch.arange(8.0).unsqueeze(1), torch.arange(8.0) + 2
    for name in ("mse", "bce"):
        assert loss_of(outputs, targets, name) == loss_of(outputs[:, 0], targets, name)
    assert loss_of(outputs, targets, "mse") == 4
    with pytest.raises(UserError, match=r"loss=mse: targets of shape \(8,\) do not go with outputs of shape \(8, 3\)"):
        loss_of(torch.zeros(8, 3), targets, "mse")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (CrossEntropy(label_smoothing=1.5), "loss.label_smoothing"),
        (CrossEntropy(weight=[1.0, -1.0]), r"loss.weight=\[1.0, -1.0\] must be positive"),
        (CrossEntropy(weight=[]), "loss.weight"),
        (BinaryCrossEntropy(pos_weight=[float("nan")]), "loss.pos_weight"),
    ],
)
def test_impossible_options_are_named(loss, message):
    with pytest.raises(UserError, match=message):
        loss.check()


def test_losses_of_ones_own_are_called_and_watched():
    outputs, targets = sample(6, 3)
    assert loss_of(outputs, targets, F.cross_entropy) == loss_of(outputs, targets)
    weighted = nn.CrossEntropyLoss(torch.tensor(WEIGHTS))  # float32, and goes to the outputs' type
    assert loss_of(outputs, targets, weighted) == loss_of(outputs, targets, CrossEntropy(weight=WEIGHTS))
    with pytest.raises(UserError, match=r"gives a tensor of shape \(6,\); return one number"):
        loss_of(outputs, targets, nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(UserError, match=r"^loss cross_entropy raises .*shape \(6, 3\) and targets of shape \(4,\)"):
        loss_of(outputs, targets[:4], F.cross_entropy)
    with pytest.raises(UserError, match="cross_entropy, mse, bce"):
        as_loss("hinge")
    with pytest.raises(UserError, match="is no loss"):
        as_loss(7)
