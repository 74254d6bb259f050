import pytest
import torch

from neuralmech.data import Batches, DigitsOptions, SyntheticOptions, load_data
from neuralmech.errors import UserError


def test_digits_are_all_there_and_standardised():
    data = load_data(DigitsOptions())
    assert len(data.train_x) + len(data.test_x) == 1797
    x = torch.cat([data.train_x, data.test_x])
    assert data.shape == (1, 8, 8)
    assert abs(float(x.mean())) < 1e-12
    assert float(x.std()) == pytest.approx(1)
    assert set(data.train_y.tolist()) == set(range(10))


def test_synthetic_data_depend_on_their_seed_alone():
    first, again, other = (load_data(SyntheticOptions(shape=[2, 3], seed=s)) for s in (0, 0, 1))
    assert torch.equal(first.train_x, again.train_x)
    assert not torch.equal(first.train_x, other.train_x)
    assert first.shape == (2, 3)


def test_an_epoch_sees_every_sample_once_and_epochs_differ():
    x = torch.arange(20)
    batches = Batches(x, x, 5, seed=3)
    epochs = [torch.cat([batches(4 * e + i)[0] for i in range(4)]) for e in range(2)]
    assert all(torch.equal(e.sort().values, x) for e in epochs)
    assert not torch.equal(*epochs)
    assert torch.equal(batches(2)[0], Batches(x, x, 5, seed=3)(2)[0])


def test_an_empty_held_out_part_is_refused():
    with pytest.raises(UserError, match="holds out 0 of 40 samples"):
        load_data(SyntheticOptions(size=40, test_fraction=0.01))
