"""What a run is, in words: model, data, rule, hyperparameters, length, where it came to."""

from __future__ import annotations

import math
from typing import Any

from neuralmech.record import Record
from neuralmech.record.safety import printable

RATES = {"lr": "η", "momentum": "β", "weight_decay": "λ"}
_SIZES = ("width", "depth", "norm")  # options of a model that its name alone does not tell


def about(record: Record) -> dict[str, str]:
    """Parts of a run's title by what they are about; what nobody knows is left out.

    ``model``, ``data``, ``rule``, ``lr``, ``momentum``, ``weight_decay``, ``batch_size``, ``steps``, ``accuracy``.
    """
    model, data = _group(record, "model"), _group(record, "data")
    own = bool(record.config.get("attached"))  # a loop of the user's own, whose data nobody knows
    parts = {"model": _model(model), "data": "" if own else _name(data), "rule": str(record.rule["name"])}
    for name, sign in RATES.items():
        column = record.column(name)
        if len(column) and (name == "lr" or column.any()):
            first, last, low, high = column[0], column[-1], column.min(), column.max()
            steady = low == high
            parts[name] = f"{sign} = {first:.3g}" if steady else f"{sign} = {first:.3g} → {last:.3g}"
    if record.rows and (size := int(record.column("batch_size", slice(0, 1))[0])):
        parts["batch_size"] = f"S = {size:,}"
    if record.rows:
        parts["steps"] = f"{int(record.column('step', slice(record.rows - 1, record.rows))[0]) + 1:,} steps"
    held_out = record.evaluation()
    if len(held_out):
        loss, accuracy = held_out.iloc[-1][["loss", "accuracy"]]
        parts["accuracy"] = f"held-out loss {loss:.3g}" if math.isnan(accuracy) else f"accuracy {accuracy:.1%}"
    return {name: printable(text) for name, text in parts.items() if text}


def title(parts: dict[str, str]) -> str:
    """One line out of the parts that are there.

    Examples
    --------
    >>> title({"model": "mlp", "data": "digits", "rule": "sgd", "lr": "η = 0.1", "steps": "20 steps"})
    'mlp on digits: sgd, η = 0.1, 20 steps'
    """
    subject = " on ".join(parts[name] for name in ("model", "data") if name in parts)
    rest = ", ".join(text for name, text in parts.items() if name not in ("model", "data"))
    return ": ".join(text for text in (subject, rest) if text)


def common(runs: list[dict[str, str]]) -> dict[str, str]:
    """The parts that several runs share; of their models the name and the sizes that they share.

    Examples
    --------
    >>> common([{"model": f"mlp (width 8{norm})", "steps": "20 steps"} for norm in ("", ", norm batch")])
    {'model': 'mlp (width 8)', 'steps': '20 steps'}
    """
    if not runs:
        return {}
    models = [run.get("model", "").removesuffix(")").partition(" (") for run in runs]
    sizes = [size.split(", ") for _, _, size in models]
    shared = ", ".join(size for size in sizes[0] if all(size in other for other in sizes))
    if models[0][0] and len({name for name, _, _ in models}) == 1:
        model = f"{models[0][0]} ({shared})" if shared else models[0][0]
        runs = [{**run, "model": model} for run in runs]
    return {name: text for name, text in runs[0].items() if all(run.get(name) == text for run in runs)}


def _model(options: dict[str, Any]) -> str:
    name = str(options.get("arch") or _name(options))
    sizes = [f"{key} {options[key]}" for key in _SIZES if options.get(key) not in (None, "none")]
    return f"{name} ({', '.join(sizes)})" if name and sizes else name


def _name(options: dict[str, Any]) -> str:
    """Of an option's group; of the user's own code the name of its class or function."""
    return str(options.get("name") or str(options.get("_target_") or "").rpartition(".")[2])


def _group(record: Record, name: str) -> dict[str, Any]:
    return record.config.get(name) or {}
