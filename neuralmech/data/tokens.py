"""Sequences of tokens for language models: modular addition, and a Markov chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from neuralmech.checks import check_at_least, check_choice, check_fraction
from neuralmech.data.dataset import Dataset, split
from neuralmech.data.options import ResidencyOptions
from neuralmech.errors import UserError
from neuralmech.losses import IGNORED

TASKS = ("modular", "markov")


@dataclass
class TokensOptions(ResidencyOptions):
    """`task` modular: every "a + b =" modulo `modulus`; markov: `size` sequences of `length` tokens out of `states`."""

    name: str = "tokens"
    batch_size: int = 64
    task: str = "modular"
    modulus: int = 59
    states: int = 16
    length: int = 32
    size: int = 2000
    concentration: float = 0.3
    test_fraction: float = 0.2
    seed: int = 0

    def check(self) -> None:
        """Raise a `UserError` for impossible values."""
        super().check()
        check_choice("data.task", self.task, TASKS)
        check_at_least("data.batch_size", self.batch_size, 2)
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
