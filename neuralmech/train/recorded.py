"""The config that a record carries: plain data from somewhere else, never a reason to run code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuralmech.config import Config, resolve
from neuralmech.errors import UserError
from neuralmech.record import RecordError, open_record
from neuralmech.record.safety import printable

# What a resumed run may change: where it runs, how long, what it saves and what ends it.
MAY_DIFFER = ("device", "train.steps", "train.epochs", "train.on_nan", "train.checkpoint.")
MAY_GROW = ("train.steps", "train.epochs")


def recorded_config(folder: Path, target: str | None = None) -> dict[str, Any]:
    """A run's config as plain data that is safe to resolve.

    Parameters
    ----------
    target
        What the user, not the record, says that ``model._target_`` is.

    Raises
    ------
    RecordError
        If there is no such record, or its config holds more than plain data.
    UserError
        If its model is code that the user did not name.
    """
    with open_record(folder) as record:
        raw = record.config
    if not raw:
        raise RecordError(f"{folder} holds no config in its record; train again")
    for key, value in flat(raw).items():
        if any(part.startswith("_") for part in key.split(".")) or "${" in str(value):
            raise RecordError(f"{folder}: {printable(key)} in its config is no plain value; train again")
    model = raw.get("model")
    if isinstance(model, dict) and model.get("name") == "_target_":
        named = printable(str(model.get("target")))
        if target is None:
            raise UserError(
                f"{folder}: its model is code of your own, which a record must not name; "
                f"if you trust it, add model=custom model._target_={named}"
            )
        if target != named:
            raise UserError(f"model._target_={target} differs from the run's {named}; give the same one")
    return raw


def changed_config(folder: Path, changes: Mapping[str, Any]) -> Config:
    """A run's config with the user's `changes`, dotted keys, if they do not matter.

    Raises
    ------
    UserError
        With the keys that differ from the run and would make it another one.
    """
    raw = recorded_config(folder, changes.get("model._target_"))
    before = resolve(raw)
    known = flat(raw)
    is_target = raw["model"]["name"] == "_target_"
    differing = []
    for key, value in changes.items():
        if key == "model._target_":
            continue
        place = f"model.arguments.{key[6:]}" if is_target and key.startswith("model.") else key
        if isinstance(_get(raw, place), dict) and not isinstance(value, dict):  # a group by its name
            name = "custom" if _get(raw, place).get("name") == "_target_" else _get(raw, place).get("name")
            differing += [key] if value != name else []
            continue
        _set(raw, place, value)
    after = resolve(raw)
    old, new = flat(asdict(before)), flat(asdict(after))
    differing += [key for key in {**old, **new} if old.get(key) != new.get(key) and not key.startswith(MAY_DIFFER)]
    if differing:
        listed = ", ".join(f"{key} (the run has {known.get(key, old.get(key, 'none'))})" for key in differing)
        raise UserError(f"{folder} cannot be resumed with another {listed}; start a new run")
    for key in MAY_GROW:
        if old.get(key) is not None and (new.get(key) is None or new[key] < old[key]):
            raise UserError(f"{key}={new.get(key)} is less than the run's {old[key]}; it may only grow")
    return after


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys and their values.

    Examples
    --------
    >>> flat({"a": {"b": 1, "c": [2]}, "d": 3})
    {'a.b': 1, 'a.c': [2], 'd': 3}
    """
    return dict(_items(config, ""))


def _items(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _items(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _get(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for part in groups:
        config = config.setdefault(part, {})
        if not isinstance(config, dict):
            raise UserError(f"{key} is no option")
    config[last] = value
