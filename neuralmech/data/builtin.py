"""Data sets that need no download: handwritten digits, a random teacher's labels, sequences of tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from neuralmech.checks import check_at_least, check_choice, check_fraction
from neuralmech.data.dataset import Dataset, split
from neuralmech.data.options import DataOptions, LabelOptions
from neuralmech.errors import UserError
from neuralmech.losses import IGNORED

TEST_FRACTION = 0.2  # of the samples that is held out


@dataclass
class DigitsOptions(LabelOptions):
    """`test_fraction` of the images is held out."""

    name: str = "digits"
    test_fraction: float = TEST_FRACTION

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_fraction("data.test_fraction", self.test_fraction)


def load_digits(options: DigitsOptions) -> Dataset:
    """Load the digits, standardised, as images (1, 8, 8)."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float64).unsqueeze(1)
    y = torch.tensor(bunch.target, dtype=torch.int64)
    return split((x - x.mean()) / x.std(), y, options.test_fraction, classes=10)


@dataclass
class SyntheticOptions(LabelOptions):
    """`size` samples of `shape`, Gaussian; labels are the argmax of a random two-layer teacher's logits."""

    name: str = "synthetic"
    shape: list[int] = field(default_factory=lambda: [1, 8, 8])
    classes: int = 10
    size: int = 2000
    test_fraction: float = TEST_FRACTION
    seed: int = 0

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_at_least("data.classes", self.classes, 2)
        check_at_least("data.size", self.size, 2)
        check_fraction("data.test_fraction", self.test_fraction)
        if not self.shape or min(self.shape) < 1:
            raise UserError(f"data.shape={self.shape} is no shape; give positive sizes such as [1,8,8]")


def make_synthetic(options: SyntheticOptions) -> Dataset:
    """Draw inputs and the teacher from ``data.seed``; the run's own seed does not change the data."""
    generator = torch.Generator().manual_seed(options.seed)
    x = torch.randn(options.size, *options.shape, generator=generator, dtype=torch.float64)
    flat = x.flatten(1)
    hidden = torch.randn(flat.shape[1], 32, generator=generator, dtype=torch.float64) / flat.shape[1] ** 0.5
    output = torch.randn(32, options.classes, generator=generator, dtype=torch.float64)
    y = (torch.relu(flat @ hidden) @ output).argmax(dim=1)
    return split(x, y, options.test_fraction, options.classes)


TASKS = ("modular", "markov")


@dataclass
class TokensOptions(DataOptions):
    """`task` modular: every "a + b =" modulo `modulus`; markov: `size` sequences of `length` tokens out of `states`."""

    name: str = "tokens"
    task: str = "modular"
    modulus: int = 59
    states: int = 16
    length: int = 32
    size: int = 2000
    concentration: float = 0.3
    test_fraction: float = TEST_FRACTION
    seed: int = 0

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_choice("data.task", self.task, TASKS)
        check_at_least("data.modulus", self.modulus, 2)
        check_at_least("data.states", self.states, 2)
        check_at_least("data.length", self.length, 1)
        check_at_least("data.size", self.size, 2)
        check_fraction("data.test_fraction", self.test_fraction)
        check_at_least("data.seed", self.seed, 0)
        if not 0 < self.concentration < float("inf"):
            raise UserError(f"data.concentration={self.concentration} must be a positive number, such as 0.3")


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


def transitions(options: TokensOptions, random: np.random.Generator | None = None) -> np.ndarray:
    """Transition matrix (states, states) of the Markov chain; each row sums to one."""
    random = random or np.random.default_rng(options.seed)
    return random.dirichlet(np.full(options.states, options.concentration), size=options.states)
