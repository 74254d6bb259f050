"""Checks of single config values; each error names the key, the value and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from neuralmech.errors import UserError


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Raise a `UserError` unless `value` is one of `choices`.

    Examples
    --------
    >>> check_choice("model.norm", "bach", ["none", "batch"])
    Traceback (most recent call last):
    neuralmech.errors.UserError: model.norm=bach is unknown (did you mean batch?); choose one of none, batch
    """
    options = list(choices)
    if value not in options:
        near = difflib.get_close_matches(str(value), options, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"{key}={value} is unknown{hint}; choose one of {', '.join(options)}")


def elsewhere(key: str, known: Iterable[str]) -> list[str]:
    """Known keys with the same last part as a key, or else with one that is spelt alike.

    Examples
    --------
    >>> elsewhere("lr", ["model.width", "optim.lr"]), elsewhere("epocs", ["train.epochs", "train.steps"])
    (['optim.lr'], ['train.epochs'])
    """
    last, ends = key.rpartition(".")[2], {name: name.rpartition(".")[2] for name in known}
    near = [last] if last in ends.values() else difflib.get_close_matches(last, ends.values(), n=1)
    return [name for name, end in ends.items() if end in near]


def check_at_least(key: str, value: float, least: float) -> None:
    """Raise a `UserError` if `value` is below `least` or not a number."""
    if not value >= least:
        raise UserError(f"{key}={value} is too small; give {least} or more")


def check_fraction(key: str, value: float) -> None:
    """Raise a `UserError` unless 0 < value < 1."""
    if not 0 < value < 1:
        raise UserError(f"{key}={value} is no fraction; give a number between 0 and 1")


def check_share(key: str, value: float) -> None:
    """Raise a `UserError` unless 0 ≤ value < 1."""
    if not 0 <= value < 1:
        raise UserError(f"{key}={value} is no share; give a number from 0 up to 1, 0 for none")
