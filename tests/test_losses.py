import pytest
import torch

from neuralmech.losses import IGNORED, loss_of, tally


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
    total, right, count = tally(logits, some)
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
    total, right, count = tally(logits, targets)
    assert total == pytest.approx(tally(logits.double(), targets)[0], rel=1e-6)
    assert (right, count) == tally(logits.double(), targets)[1:]
