import numpy as np
import pytest
import torch

from neuralmech.data import Batches, Dataset, DigitsOptions, SyntheticOptions, load_data, training_batches
from neuralmech.data.parts import Samples
from neuralmech.errors import UserError
from neuralmech.losses import IGNORED


def test_digits_are_all_there_and_standardised():
    data = load_data(DigitsOptions())
    assert len(data.train) + len(data.test) == 1797
    x = torch.cat([data.train.x, data.test.x])
    assert data.shape == (1, 8, 8)
    assert abs(float(x.mean())) < 1e-12
    assert float(x.std()) == pytest.approx(1)
    assert set(data.train.y.tolist()) == set(range(10))


def test_synthetic_data_depend_on_their_seed_alone():
    first, again, other = (load_data(SyntheticOptions(shape=[2, 3], seed=s)) for s in (0, 0, 1))
    assert torch.equal(first.train.x, again.train.x)
    assert not torch.equal(first.train.x, other.train.x)
    assert first.shape == (2, 3)


def test_an_epoch_sees_every_sample_once_and_epochs_differ():
    x = torch.arange(20)
    data = Dataset(Samples(x, x), Samples(x, x), classes=20)
    batches = Batches(data, 5, seed=3)
    epochs = [torch.cat([batches(4 * e + i)[0] for i in range(4)]) for e in range(2)]
    assert all(torch.equal(e.sort().values, x) for e in epochs)
    assert not torch.equal(*epochs)
    assert torch.equal(batches(2)[0], Batches(data, 5, seed=3)(2)[0])


def test_batches_are_those_that_old_records_were_made_with():
    """The rule in other words: its random numbers must never change, or a run could not be made again."""

    def source(*numbers):
        state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state) % 2**63)

    data = load_data(SyntheticOptions(shape=[4], size=100))
    batches = training_batches(data, SyntheticOptions(batch_size=16, label_noise=0.4), seed=7)
    for step in (0, 3, 4, 11):
        epoch, position = divmod(step, 5)
        chosen = torch.randperm(80, generator=source(7, epoch))[16 * position : 16 * (position + 1)]
        noise = source(7, step, 1)
        labels, redrawn = torch.randint(10, (16,), generator=noise), torch.rand(16, generator=noise) < 0.4
        x, y = batches(step)
        assert torch.equal(x, data.train.x[chosen])
        assert torch.equal(y, torch.where(redrawn, labels, data.train.y[chosen]))


def test_an_empty_held_out_part_is_refused():
    with pytest.raises(UserError, match="holds out 0 of 40 samples"):
        load_data(SyntheticOptions(size=40, test_fraction=0.01))


def test_label_noise_leaves_targets_that_do_not_count():
    """As they are; the others are drawn as they would be without them."""
    x, y = torch.arange(40.0)[:, None], torch.arange(40) % 7
    some = torch.where(torch.arange(40) % 3 == 0, IGNORED, y)
    all_of, some_of = (
        Batches(Dataset(Samples(x, labels), Samples(x, y), 7), 40, 0, label_noise=0.5)(0) for labels in (y, some)
    )
    assert torch.equal(all_of[0], some_of[0])
    ignored = all_of[0][:, 0] % 3 == 0
    assert torch.equal(some_of[1], torch.where(ignored, IGNORED, all_of[1]))
    assert (all_of[1] != all_of[0][:, 0] % 7).float().mean() > 0.2
