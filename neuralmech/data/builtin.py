"""Data sets that need no download: handwritten digits, a random teacher's labels, sequences of tokens."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray

from neuralmech.data.dataset import Dataset, split
from neuralmech.data.options import DigitsOptions, SyntheticOptions, TokensOptions
from neuralmech.errors import UserError
from neuralmech.losses import IGNORED

DIGITS_FILE = "datasets/data/digits.csv.gz"  # in scikit-learn


def load_digits(options: DigitsOptions) -> Dataset:
    """Load the digits, standardised, as images (1, 8, 8).

    Raises
    ------
    UserError
        If scikit-learn, which ships them, is not there.
    """
    table = torch.from_numpy(np.loadtxt(_digits_file(), delimiter=","))  # 64 grey levels and the label
    x, y = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].long()
    return split((x - x.mean()) / x.std(), y, options.test_fraction, classes=10)


def _digits_file() -> Path:
    """Their file in scikit-learn, which takes as long to import as torch does."""
    found = find_spec("sklearn")
    folders = (Path(place) for place in (found.submodule_search_locations if found else None) or ())
    files = [path for path in (folder / DIGITS_FILE for folder in folders) if path.is_file()]
    if not files:
        raise UserError("data=digits reads the digits of scikit-learn, which are not there; pip install scikit-learn")
    return files[0]


def make_synthetic(options: SyntheticOptions) -> Dataset:
    """Draw inputs and the teacher from ``data.seed``; the run's own seed does not change the data."""
    generator = torch.Generator().manual_seed(options.seed)
    x = torch.randn(options.size, *options.shape, generator=generator, dtype=torch.float64)
    flat = x.flatten(1)
    hidden = torch.randn(flat.shape[1], 32, generator=generator, dtype=torch.float64) / flat.shape[1] ** 0.5
    output = torch.randn(32, options.classes, generator=generator, dtype=torch.float64)
    y = (torch.relu(flat @ hidden) @ output).argmax(dim=1)
    return split(x, y, options.test_fraction, options.classes)


def make_tokens(options: TokensOptions) -> Dataset:
    """Make the sequences from ``data.seed``; the run's own seed does not change the data."""
    return {"modular": _modular, "markov": _markov}[options.task](options)


def _modular(options: TokensOptions) -> Dataset:
    """All p² sums: tokens (a, +, b, =), of which only the answer at "=" counts (Power et al. 2022, *Grokking*)."""
    p = options.modulus
    plus, equals = p, p + 1
    a, b = torch.cartesian_prod(torch.arange(p), torch.arange(p)).unbind(1)
    x = torch.stack([a, torch.full_like(a, plus), b, torch.full_like(a, equals)], dim=1)
    y = torch.full_like(x, IGNORED)
    y[:, -1] = (a + b) % p
    return split(x, y, options.test_fraction, classes=p + 2, seed=options.seed)


def _markov(options: TokensOptions) -> Dataset:
    """Sequences of a chain with P(next | now) ~ Dirichlet(concentration); every next token counts."""
    random = np.random.default_rng(options.seed)
    chain = transitions(options, random)
    edges = chain.cumsum(axis=1)
    tokens = np.empty((options.size, options.length + 1), dtype=np.int64)
    tokens[:, 0] = random.integers(options.states, size=options.size)
    for t in range(options.length):
        drawn = random.random(options.size)[:, None]
        nexts = (drawn >= edges[tokens[:, t]]).sum(axis=1)
        tokens[:, t + 1] = np.minimum(nexts, options.states - 1)  # the edges end at 1 only up to rounding
    sequences = torch.from_numpy(tokens)
    return split(
        sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous(), options.test_fraction, options.states,
        seed=options.seed,
    )  # fmt: skip


def transitions(options: TokensOptions, random: np.random.Generator | None = None) -> Float64[NDArray, "tokens tokens"]:
    """Transition matrix (states, states) of the Markov chain; each row sums to one."""
    random = random or np.random.default_rng(options.seed)
    return random.dirichlet(np.full(options.states, options.concentration), size=options.states)
