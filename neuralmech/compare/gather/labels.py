"""What tells the runs of a sweep from one another: the keys of their configs whose values differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count, takewhile
from typing import Any

from neuralmech.compare.gather.runs import Job, Runs
from neuralmech.record.safety import printable

# Differences between jobs that are not hyperparameters of the run.
_BOOKKEEPING = ("device", "track.block")
SYMBOLS = {"optim.lr": "η", "optim.momentum": "β", "optim.weight_decay": "λ", "data.batch_size": "S"}
OF_GROUP = ("name", "_target_")  # what says which file of a group, such as optim, was taken


def labels_of(found: Runs) -> list[dict[str, Any]]:
    """Swept keys of every job; with the job's name besides where they do not tell two runs apart."""
    if not found.is_sweep:
        return [{}]
    labels = _differences(found.jobs)
    if len({tuple(map(repr, label.values())) for label in labels}) < len(labels):
        labels = [{"run": job.name, **label} for job, label in zip(found.jobs, labels, strict=True)]
    return labels


def label_text(label: Mapping[str, object]) -> str:
    """What tells a run from the others of its sweep, for a figure; of the name of an option its last word is enough.

    Examples
    --------
    >>> label_text({"optim.lr": 0.1, "optim.momentum": 0.9, "model.norm": "batch"})
    'η = 0.1, β = 0.9, norm = batch'
    >>> label_text({"optim.name": "muon"})
    'optim = muon'
    """
    return label_texts([label])[0]


def label_texts(labels: Sequence[Mapping[str, object]]) -> list[str]:
    """The same of several runs; of long values what they have in common is left out, or else their middle.

    Examples
    --------
    >>> files = [f"/home/me/experiments/tokens-{size}.npz" for size in ("small", "large")]
    >>> label_texts([{"data.file": file, "seed": 0} for file in files])
    ['file = …small…, seed = 0', 'file = …large…, seed = 0']
    """
    keys = list(dict.fromkeys(key for label in labels for key in label))
    names = {key: SYMBOLS.get(key, _last_word(key)) for key in keys}
    if len(set(names.values())) < len(names):
        names = {key: SYMBOLS.get(key, key) for key in keys}
    values = {key: [_value(label[key]) for label in labels if key in label] for key in keys}
    short = {key: _told_apart(dict.fromkeys(of)) for key, of in values.items()}
    return [", ".join(f"{names[key]} = {short[key][_value(label[key])]}" for key in label) for label in labels]


LONGEST = 24  # letters of a value in a figure


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _last_word(key: str) -> str:
    """Of an option's name, but that of a group is what says which of its files was taken."""
    parts = key.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1] in OF_GROUP else parts[-1]


def _told_apart(values: Iterable[str]) -> dict[str, str]:
    """Each of several texts in few letters, no two the same."""
    values = list(values)
    if max(map(len, values), default=0) <= LONGEST:
        return dict(zip(values, values, strict=True))
    begin = _in_common(values)
    end = _in_common([value[begin:][::-1] for value in values])
    short = [_middle_out(f"{'…' * (begin > 0)}{v[begin : len(v) - end]}{'…' * (end > 0)}") for v in values]
    return dict(zip(values, short if len(set(short)) == len(values) else values, strict=True))


def _in_common(values: Sequence[str]) -> int:
    """How many letters several texts begin with in common; none where dots in their place are as long."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*values, strict=False))
    found = sum(1 for _ in alike) if len(values) > 1 else 0
    return found if found > 3 else 0


def _middle_out(text: str) -> str:
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[: half - 1]}…{text[len(text) - half :]}"


def _differences(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """For each job the config keys, dotted, whose values are not the same in all of them, as far as they were swept.

    The configuration of a failed job is not completed with defaults: keys that it lacks are no difference.
    """
    jobs = list(jobs)
    flat = [_flatten(job.config) for job in jobs]
    whole = [config for config, job in zip(flat, jobs, strict=True) if not job.reason] or flat
    keys = dict.fromkeys(key for config in whole for key in config)
    differ = []
    for key in keys:
        values = {_same(config.get(key)) for config in whole}
        values |= {_same(config[key]) for config in flat if key in config}
        if len(values) > 1 and key not in _BOOKKEEPING:
            differ.append(key)
    swept = _swept(differ, jobs, flat)
    columns = distinct(map(_column, swept))
    return [{c: _scalar(config.get(k, "")) for c, k in zip(columns, swept, strict=True)} for config in flat]


def _swept(differ: Sequence[str], jobs: Sequence[Job], flat: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of keys that differ those that the jobs' own words say; all of them where these do not tell the jobs apart.

    Which optimiser it is brings a learning rate, a momentum and more with it, which say nothing that its name does not.
    """
    words = [dict(_split(word) for word in job.overrides) for job in jobs]
    said = [key for key in dict.fromkeys(k for of in words for k in of) if len({of.get(key) for of in words}) > 1]
    names = {key: [name for name in (f"{key}.{last}" for last in OF_GROUP) if name in differ] for key in said}
    told = [k for k in differ if any(k == key or k in names[key] for key in said)]
    told = [k for k in differ if k in told or any(k.startswith(f"{key}.") and not names[key] for key in said)]

    def apart(chosen: Sequence[str]) -> int:
        return len({tuple(_same(config.get(key)) for key in chosen) for config in flat})

    return told if apart(told) == apart(differ) else list(differ)


def _split(word: str) -> tuple[str, str]:
    """Key and value of a job's word: ``+a.b=1`` is about ``a.b``, ``optim@other=sgd`` about ``other``."""
    key, _, value = word.lstrip("+~").partition("=")
    return key.rpartition("@")[2], value


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
