"""From the plain YAML that Hydra composes to typed options, and back."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuralmech.checks import check_choice, elsewhere
from neuralmech.config.optim import RULES
from neuralmech.config.options import Config, LoggerConfig, TrackConfig, TrainConfig
from neuralmech.data import DATASETS
from neuralmech.errors import UserError
from neuralmech.losses import LOSSES, CrossEntropy
from neuralmech.models import MODELS

# Groups that may be a user's own code, and the options of each by name.
OWN: dict[str, dict[str, type]] = {
    "model": {name: options for name, (options, _) in MODELS.items()},
    "data": {name: options for name, (options, _) in DATASETS.items()},
    "loss": LOSSES,
    "optim": RULES,
}
OLDEST_LOSS = CrossEntropy.name  # that of records from before there was a choice
OLDEST_RULE = "sgd"  # that of a config without a name for it
EXAMPLES = {"model": "MyNet", "data": "my_data", "loss": "my_loss", "optim": "MyRule"}


def resolve(raw: DictConfig | Mapping[str, Any]) -> Config:
    """Turn a composed Hydra config into a checked `Config`.

    Raises
    ------
    UserError
        With the key, what is wrong with its value, and the remedy, in one line.
    """
    values: dict[str, Any] = dict(
        cast(Mapping[str, Any], OmegaConf.to_container(raw, resolve=True)) if isinstance(raw, DictConfig) else raw
    )
    values.pop("experiment", None)
    values.pop("sweep", None)
    if values.pop("resume", None) is not None:
        raise UserError("resume belongs on the command line: neuralmech train resume=RUN [train.steps=…]")
    values.setdefault("loss", {"name": OLDEST_LOSS})
    if isinstance(values.setdefault("optim", {}), dict) and "_target_" not in values["optim"]:
        values["optim"] = {"name": OLDEST_RULE, **values["optim"]}
    for key in OWN:
        if isinstance(values.get(key), dict) and "_target_" in values[key]:
            values[key] = own_code(key, values[key])
    parts = {
        **{key: _options(key, values, registry) for key, registry in OWN.items()},
        "track": TrackConfig,
        "train": TrainConfig,
        "logger": LoggerConfig,
    }
    typed = {key: _typed(key, schema, values.pop(key, {})) for key, schema in parts.items()}
    options = [f"{key}.{name}" for key, schema in parts.items() for name in _names(schema)]
    _reject_unknown("", values, ("seed", "device", *parts, "experiment"), options)
    plain = _typed("", _Rest, values)
    config = Config(**typed, seed=plain.seed, device=plain.device)
    config.check()
    return config


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML, for the record."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def own_code(key: str, group: Mapping[str, Any]) -> dict[str, Any]:
    """``_target_``, options that go with any, and its arguments; those of a named default do not count.

    Raises
    ------
    UserError
        If ``_target_`` is not set.
    """
    if group["_target_"] == "???":
        raise UserError(f"{key}._target_ is missing; set {key}._target_=my_package.{EXAMPLES[key]}")
    arguments = {k: v for k, v in group.items() if k != "_target_"}
    options = {k: arguments.pop(k) for k in own_options(key) & set(arguments)}
    if "name" in arguments:
        for name in ("name", *(f.name for f in fields(OWN[key][arguments["name"]]))):
            arguments.pop(name, None)
    return {"name": "_target_", "target": str(group["_target_"]), "arguments": arguments, **options}


def own_options(key: str) -> set[str]:
    """Options of a group that go with any code of the user's own, and are none of its arguments."""
    return {f.name for f in fields(OWN[key]["_target_"])} - {"name", "target", "arguments"}


@dataclass
class _Rest:
    seed: int = Config.seed
    device: str = Config.device


def _options(key: str, values: Mapping[str, Any], registry: Mapping[str, type]) -> type:
    group = values.get(key)
    if not isinstance(group, dict) or "name" not in group:
        raise UserError(
            f"{key} is missing; choose one of {', '.join(registry)}, for instance {key}={next(iter(registry))}"
        )
    check_choice(key, str(group["name"]), registry)
    return registry[group["name"]]


def _typed(key: str, schema: Any, values: Any) -> Any:
    """Merge values into a dataclass; type errors and unknown keys become one line."""
    if not isinstance(values, dict):
        raise UserError(f"{key}={values} must be a group of options, such as {key}.{fields(schema)[0].name}=…")
    _reject_unknown(key, values, [f.name for f in fields(schema)])
    for f in fields(schema):
        nested = values.get(f.name)
        if f.name in values and is_dataclass(f.default_factory):
            known = [g.name for g in fields(f.default_factory)]
            if not isinstance(nested, dict):
                raise UserError(
                    f"{key}.{f.name}={nested} is a group of options; set {key}.{f.name}.{known[0]}={nested}"
                )
            _reject_unknown(f"{key}.{f.name}", nested, known)
        if isinstance(nested, str) and str(f.type).startswith("list"):
            raise UserError(f"{key}.{f.name}={nested} must be a list, such as [{nested}]")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except OmegaConfBaseException as error:
        name = ".".join(part for part in (key, str(error.full_key or "")) if part)
        text = (error.msg or str(error)).splitlines()[0]
        raise UserError(f"{name}: {text}; see `neuralmech train --cfg job` for the expected types") from None


def _names(schema: Any) -> Iterator[str]:
    """Options of a group, dotted where they are in groups of their own."""
    for f in fields(schema):
        yield f.name
        if is_dataclass(f.default_factory):
            yield from (f"{f.name}.{g.name}" for g in fields(f.default_factory))


def _reject_unknown(prefix: str, values: Mapping[str, Any], known, others: Iterable[str] = ()) -> None:
    """Raise a `UserError` for a key that is not known; `others` are options elsewhere that may have been meant."""
    for key in values:
        if key not in known:
            full = f"{prefix}.{key}" if prefix else str(key)
            beside = difflib.get_close_matches(str(key), list(known), n=1)
            near = [f"{prefix}.{one}" if prefix else one for one in beside] or elsewhere(str(key), others)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
            raise UserError(f"{full} is no option; {hint}")
