"""The config that a record carries: plain data from somewhere else, never a reason to run code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuralmech.config import OLDEST_LOSS, OWN, Config, own_code, resolve, to_yaml
from neuralmech.errors import UserError
from neuralmech.record import RecordError, open_record
from neuralmech.record.safety import plain_yaml
from neuralmech.words import printable

# What a resumed run may change: where and how it runs, where its data are, how long, what it saves and what ends it.
MAY_DIFFER = (
    "data.folder",
    "data.path",
    "data.residency",
    "data.workers",
    "device",
    "train.steps",
    "train.epochs",
    "train.accumulate",
    "train.on_nan",
    "train.checkpoint.",
    "train.compile",
    "train.cuda_graph",
    "train.deterministic",
    "train.verify",
    "logger.",
)
MAY_GROW = ("train.steps", "train.epochs")
WHERE = ("folder", "path")  # options of data that say where they are


SHOWN = 300  # characters of code that a record names


def recorded_config(folder: Path, code: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A run's config as plain data that is safe to resolve; where its data were on its machine is left out.

    Parameters
    ----------
    code
        ``_target_`` and its arguments by group (``model``, ``data``, ``loss``), and the place of data (``folder``,
        ``path``), as the user gives them, not the record.

    Raises
    ------
    RecordError
        If there is no such record, or its config holds more than plain data.
    UserError
        If its model, data or loss are code, and not the user's word for word: what is called, and with what.
    """
    with open_record(folder) as record:
        raw = record.config
    if not raw:
        raise RecordError(f"{folder} holds no config in its record; train again")
    for key, value in flat(raw).items():
        if any(part.startswith("_") for part in key.split(".")) or "${" in str(value):
            raise RecordError(f"{folder}: {printable(key)} in its config is no plain value; train again")
    if raw.get("attached"):
        raise RecordError(
            f"{folder} is of a training loop of your own, which alone has its model and data; to go on there give "
            "neuralmech.attach resume=True, to check claims call neuralmech.verify(model, inputs, targets)"
        )
    raw.setdefault("loss", {"name": OLDEST_LOSS})
    if isinstance(raw.get("track"), dict):
        raw["track"].setdefault("norms_of", [])  # an older one's record has no room for them
    for group in OWN:
        _check_code(folder, group, raw.get(group), code.get(group))
    if isinstance(raw.get("data"), dict):
        _place_data(folder, raw["data"], code.get("data", {}))
    return raw


def _place_data(folder: Path, options: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Where a run's data are on this machine: as the user says, never as the record does."""
    if "name" in given and given["name"] != options.get("name"):
        raise UserError(f"{folder} has data={printable(str(options.get('name')))}; name these, and where they are")
    options.pop("folder", None)
    if given.get("folder") is not None:
        options["folder"] = given["folder"]
    if options.get("path") is not None:
        options["path"] = given.get("path") or ""  # without any they might be others that are shipped


def _check_code(folder: Path, group: str, options: Any, given: Mapping[str, Any] | None) -> None:
    """Raise a `UserError` if a group is code and the user did not give the same code with the same arguments."""
    if not isinstance(options, dict) or options.get("name") != "_target_":
        return
    recorded = {"_target_": options.get("target"), **flat(_mapping(options.get("arguments")))}
    if given is None or "_target_" not in given:
        what = ", ".join(f"{key}={value!r}" for key, value in recorded.items())
        raise UserError(
            f"{folder}: its {group} is code of your own, which a record must not name ({_shown(what)}); "
            f"if that is yours, give {group}=custom, {group}._target_ and its arguments as you did for training"
        )
    own = own_code(group, given)
    said = {"_target_": own["target"], **flat(own["arguments"])}
    differing = [k for k in {**recorded, **said} if repr(recorded.get(k, flat)) != repr(said.get(k, flat))]
    if differing:
        listed = ", ".join(
            f"{group}.{_shown(key)} (the run has {_shown(repr(recorded[key])) if key in recorded else 'none'})"
            for key in differing
        )
        raise UserError(f"{folder}: its {group} is code, of which you must give the same {listed}")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _shown(text: str) -> str:
    """What a record says, for people: without characters that steer a terminal, and not too much of it."""
    text = printable(text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text) - SHOWN} characters more)"


class AnotherRunError(UserError):
    """The changes would make it another run."""


def as_changes(config: Config) -> dict[str, Any]:
    """A whole config as changes: they are none of the run that has this config."""
    changes = flat(asdict(config))
    own = [group for group in OWN if changes[f"{group}.name"] == "_target_"]
    for group in own:  # in the user's words
        del changes[f"{group}.name"]
        changes[f"{group}._target_"] = changes.pop(f"{group}.target")
        arguments = [key for key in changes if key.startswith(f"{group}.arguments")]
        changes |= {key.replace(".arguments", "", 1): changes.pop(key) for key in arguments if changes[key] != {}}
    return changes


def changed_config(folder: Path, changes: Mapping[str, Any]) -> Config:
    """A run's config with the user's `changes`, dotted keys, if they do not matter.

    Raises
    ------
    AnotherRunError
        With the keys that differ from the run and would make it another one.
    """
    code = {g: _group(changes, g) for g in OWN if any(f"{g}.{key}" in changes for key in ("_target_", *WHERE))}
    code.get("data", {}).pop("name", None)  # it is among the changes
    raw = recorded_config(folder, code)
    before = resolve(raw)
    known = flat(raw) | {group: _name(raw[group]) for group in raw if isinstance(raw[group], dict)}
    differing = []
    for key, value in changes.items():
        if key.endswith("._target_") and key.removesuffix("._target_") in code:
            continue
        place = _place(raw, key)
        if isinstance(_get(raw, place), dict) and not isinstance(value, dict):  # a group by its name
            differing += _another(key, _get(raw, place), value)
            continue
        _set(raw, place, value)
    after = resolve(raw)
    old, new = flat(asdict(before)), flat(asdict(after))
    differing += [key for key in {**old, **new} if old.get(key) != new.get(key) and not key.startswith(MAY_DIFFER)]
    if (old.get("data.path") is None) != (new.get("data.path") is None):
        differing.append("data.path")
    if differing:
        listed = ", ".join(f"{key} (the run has {known.get(key, old.get(key, 'none'))})" for key in differing)
        raise AnotherRunError(f"{folder} cannot be resumed with another {listed}; start a new run")
    for key in MAY_GROW:
        if old.get(key) is not None and (new.get(key) is None or new[key] < old[key]):
            raise UserError(f"{key}={new.get(key)} is less than the run's {old[key]}; it may only grow")
    return after


def disagreements(config: Config, other: Any) -> dict[str, tuple[Any, Any]]:
    """Keys that matter and are in another config, as plain data, too: both values where they are not the same."""
    ours, theirs = flat(plain_yaml(to_yaml(config))), flat(_mapping(other))
    common = [key for key in ours if key in theirs and not key.startswith(MAY_DIFFER)]  # options come and go
    return {key: (ours[key], theirs[key]) for key in common if repr(ours[key]) != repr(theirs[key])}


def _group(changes: Mapping[str, Any], group: str) -> dict[str, Any]:
    """What the user's words say of a group, as a tree."""
    tree: dict[str, Any] = {}
    for key, value in changes.items():
        if key.startswith(f"{group}."):
            _set(tree, key.removeprefix(f"{group}."), value)
    return tree


def _name(options: Mapping[str, Any]) -> Any:
    """What the command line calls a group with these options; None if it has no name."""
    return "custom" if options.get("name") == "_target_" else options.get("name")


def _another(key: str, options: Mapping[str, Any], value: Any) -> list[str]:
    """The key of a group if `value` is another one's name.

    Raises
    ------
    UserError
        If the group has no name.
    """
    if _name(options) is None:
        option = next(iter(options))
        raise UserError(f"{key}={value}: {key} is a group of options; set one of them, such as {key}.{option}=…")
    return [key] if value != _name(options) else []


def _place(raw: Mapping[str, Any], key: str) -> str:
    """Where a key of the command line is in the recorded config, which keeps the arguments of own code apart."""
    group, _, rest = key.partition(".")
    options = raw.get(group)
    if not isinstance(options, dict) or options.get("name") != "_target_" or not rest:
        return key
    return key if rest.partition(".")[0] in options else f"{group}.arguments.{rest}"


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
