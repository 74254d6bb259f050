"""What tells the runs of a sweep from one another: the keys of their configs whose values differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from neuralmech.compare.gather.runs import Job, Runs
from neuralmech.record.safety import printable

# Differences between jobs that are not hyperparameters of the run.
_BOOKKEEPING = ("device", "track.block")
SYMBOLS = {"optim.lr": "η", "optim.momentum": "β", "optim.weight_decay": "λ", "data.batch_size": "S"}


def labels_of(found: Runs) -> list[dict[str, Any]]:
    """Swept keys of every job; with the job's name besides where they do not tell two runs apart."""
    if not found.is_sweep:
        return [{}]
    labels = _differences(found.jobs)
    if len({tuple(map(repr, label.values())) for label in labels}) < len(labels):
        labels = [{"run": job.name, **label} for job, label in zip(found.jobs, labels, strict=True)]
    return labels


def label_text(label: Mapping[str, object]) -> str:
    """What tells a run from the others of its sweep, short enough for a figure.

    Examples
    --------
    >>> label_text({"optim.lr": 0.1, "optim.momentum": 0.9, "model.norm": "batch"})
    'η = 0.1, β = 0.9, norm = batch'
    """
    names = {key: SYMBOLS.get(key, key.rpartition(".")[2]) for key in label}
    if len(set(names.values())) < len(names):
        names = {key: SYMBOLS.get(key, key) for key in label}
    values = {k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in label.items()}
    return ", ".join(f"{names[key]} = {values[key]}" for key in label)


def _differences(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """For each job the config keys, dotted, whose values are not the same in all of them.

    The configuration of a failed job is not completed with defaults: keys that it lacks are no difference.
    """
    jobs = list(jobs)
    flat = [_flatten(job.config) for job in jobs]
    whole = [config for config, job in zip(flat, jobs, strict=True) if not job.reason] or flat
    keys = dict.fromkeys(key for config in whole for key in config)
    swept = []
    for key in keys:
        values = {_same(config.get(key)) for config in whole}
        values |= {_same(config[key]) for config in flat if key in config}
        if len(values) > 1 and key not in _BOOKKEEPING:
            swept.append(key)
    columns = distinct(map(_column, swept))
    return [{c: _scalar(config.get(k, "")) for c, k in zip(columns, swept, strict=True)} for config in flat]


def _column(key: str) -> str:
    """Name of a key's column; none of a table's own has a dot, and what a record calls its keys must not be one.

    Examples
    --------
    >>> [_column(key) for key in ("optim.lr", "seed", "site", "config.site")]
    ['optim.lr', 'seed', 'config.site', 'config.config.site']
    """
    plain = key in ("seed", "part") or ("." in key and not key.startswith("config."))
    return printable(key if plain else f"config.{key}")


def _same(value: Any) -> str:
    """Equal for 1 and 1.0: an override may say either."""
    exact = isinstance(value, int) and not isinstance(value, bool) and value == float(value)
    return repr(float(value)) if exact else repr(value)


def _scalar(value: Any) -> Any:
    """What a table can group by: lists and null as text."""
    return value if isinstance(value, (bool, int, float)) else printable(str(value))


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def distinct(names: Iterable[str]) -> list[str]:
    """The names, with a number behind each that was there before.

    Examples
    --------
    >>> distinct(["a", "b", "a", "a_2", "a"])
    ['a', 'b', 'a_2', 'a_2_2', 'a_3']
    """
    found: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}_{k}" for k in count(2))
        found[name if name not in found else next(n for n in numbered if n not in found)] = None
    return list(found)
