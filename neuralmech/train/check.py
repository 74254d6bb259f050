"""Verify the symmetries of a configured model, fresh or trained, on its own first batch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from neuralmech.config import resolve
from neuralmech.data import training_batches
from neuralmech.train.checkpoint import load_checkpoint
from neuralmech.train.recorded import recorded_config
from neuralmech.train.setup import prepare
from neuralmech.verification.conditions import CONDITIONS, check_conditions
from neuralmech.verification.verify import Verification, verify


def verify_fresh(raw: Mapping[str, Any], sample: int, conditions: tuple[str, ...] = CONDITIONS) -> Verification:
    """Verify the model that a config describes, as initialised."""
    check_conditions(conditions)
    return _verify(raw, None, None, sample, conditions)


def verify_run(
    folder: Path,
    step: int | None,
    sample: int,
    conditions: tuple[str, ...] = CONDITIONS,
    code: Mapping[str, Mapping[str, Any]] | None = None,
) -> Verification:
    """Verify a run's model at one of its checkpoints.

    Raises
    ------
    RecordError, UserError
        If there is no such run, checkpoint or condition, or the run's model, data or loss are a user's own code, which
        is never taken from a record: the user gives ``_target_`` and its arguments in `code`, by ``model``, ``data``
        and ``loss``.
    """
    check_conditions(conditions)
    return _verify(recorded_config(folder, code or {}), folder, step, sample, conditions)


def _verify(
    raw: Mapping[str, Any], folder: Path | None, step: int | None, sample: int, conditions: tuple[str, ...]
) -> Verification:
    config = resolve(raw)
    setup = prepare(config)
    if folder is not None:
        load_checkpoint(folder / "checkpoints", setup.model, step)
    with closing(training_batches(setup.data, config.data, config.seed)) as batches:
        x, y = batches(0)
    options = {"sample": sample, "seed": config.seed, "conditions": conditions, "precision": config.train.precision}
    return verify(setup.model, x, y, setup.symmetries, config.loss, **options)
