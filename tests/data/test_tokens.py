import numpy as np
import pytest
import torch

from neuralmech.data import Batches, TokensOptions, load_data
from neuralmech.data.builtin import transitions
from neuralmech.data.dataset import Place
from neuralmech.errors import UserError
from neuralmech.losses import IGNORED


def test_modular_data_hold_every_sum_once_and_only_the_answer_counts():
    data = load_data(TokensOptions(modulus=7, batch_size=8))
    x, y = torch.cat([data.train.x, data.test.x]), torch.cat([data.train.y, data.test.y])
    assert (data.has_tokens, data.classes, data.shape) == (True, 9, (4,))
    assert {(a, b) for a, _, b, _ in x.tolist()} == {(a, b) for a in range(7) for b in range(7)}
    assert len(x) == 49
    assert (x[:, 1] == 7).all()
    assert (x[:, 3] == 8).all()
    assert torch.equal(y[:, 3], (x[:, 0] + x[:, 2]) % 7)
    assert (y[:, :3] == IGNORED).all()
    assert len(data.test.x) == round(0.2 * 49)


def test_markov_data_follow_their_chain():
    options = TokensOptions(task="markov", states=4, length=20, size=5000, concentration=1.0)
    data = load_data(options)
    x, y = torch.cat([data.train.x, data.test.x]), torch.cat([data.train.y, data.test.y])
    assert (data.classes, data.shape) == (4, (20,))
    assert torch.equal(x[:, 1:], y[:, :-1])  # targets are the next tokens
    counts = torch.zeros(4, 4).index_put((x.flatten(), y.flatten()), torch.ones(x.numel()), accumulate=True).numpy()
    chain = transitions(options)
    np.testing.assert_allclose(chain.sum(axis=1), 1)
    error = np.sqrt(chain * (1 - chain) / counts.sum(axis=1, keepdims=True))  # of a measured frequency
    assert np.abs(counts / counts.sum(axis=1, keepdims=True) - chain).max() < 5 * error.max()


@pytest.mark.parametrize("task", ["modular", "markov"])
def test_data_depend_on_their_seed_alone(task):
    first, again, other = (load_data(TokensOptions(task=task, modulus=11, seed=s)) for s in (0, 0, 1))
    assert torch.equal(first.train.x, again.train.x)
    assert torch.equal(first.test.y, again.test.y)
    assert not torch.equal(first.train.x, other.train.x)


def test_tokens_stay_integers_on_their_way_to_a_batch():
    data = load_data(TokensOptions(modulus=7, batch_size=8)).to(Place(dtype=torch.float64))
    x, y = Batches(data, 8, seed=0)(0)
    assert (x.dtype, y.dtype) == (torch.int64, torch.int64)
    assert x.shape == y.shape == (8, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "moduler"}, "data.task=moduler is unknown .did you mean modular"),
        ({"modulus": 1}, "data.modulus=1 is too small"),
        ({"states": 1}, "data.states=1 is too small"),
        ({"length": 0}, "data.length=0 is too small"),
        ({"concentration": 0.0}, "data.concentration=0.0 must be a positive number"),
        ({"seed": -1}, "data.seed=-1 is too small"),
        ({"test_fraction": 1.5}, "data.test_fraction=1.5 is no fraction"),
        ({"modulus": 3}, "data.batch_size=64 is larger than the training data"),
    ],
)
def test_impossible_options_are_named(options, message):
    chosen = TokensOptions(**options)
    with pytest.raises(UserError, match=message):  # noqa: PT012
        chosen.check()
        load_data(chosen)
